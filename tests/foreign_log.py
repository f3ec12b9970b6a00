"""A CSV of impressions as some newspaper's site might keep it: its own column names, nothing that is ours.

Every viewer likes two of six topics, and clicks what is of them far more often; the site shows whatever it has lately.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

TOPICS = ("politics", "sport", "science", "culture", "business", "travel")
HEADER = ("session", "viewer", "when", "slot", "article", "clicked", "seconds")
LISTS_OF = 6
FIRST = datetime(2026, 3, 2, tzinfo=UTC)


def write_foreign_log(
    folder: Path, viewers: int = 400, articles: int = 150, days: int = 5, lists_a_day: int = 2, seed: int = 3
) -> Path:
    """Write folder/impressions.csv, one more day as folder/tomorrow.csv, and folder/articles.csv; returns the first."""
    random = np.random.default_rng(seed)
    topic_I = random.integers(0, len(TOPICS), articles)
    quality_I = random.normal(0, 0.4, articles)
    liked_U = np.array([random.choice(len(TOPICS), 2, replace=False) for _ in range(viewers)])
    rows = []
    for day in range(days + 1):
        for viewer in range(viewers):
            for number in range(lists_a_day):
                when = FIRST + timedelta(days=day, seconds=int(random.integers(0, 86_000)))
                shown = random.choice(articles, LISTS_OF, replace=False)
                for slot, article in enumerate(shown.tolist()):
                    taste = 2.2 if topic_I[article] in liked_U[viewer] else -0.6
                    chance = 1 / (1 + np.exp(-(taste + quality_I[article] - 1.6 - 0.15 * slot)))
                    clicked = bool(random.random() < chance)
                    seconds = f"{random.gamma(2, 30):.1f}" if clicked else ""
                    session = f"s{day}-{viewer}-{number}"
                    rows.append(
                        (session, f"v{viewer}", when, slot, f"a-{article}", "yes" if clicked else "no", seconds)
                    )
    rows.sort(key=lambda row: (row[2], row[0], row[3]))
    midnight = FIRST + timedelta(days=days)
    for name, tomorrow in (("impressions.csv", False), ("tomorrow.csv", True)):
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            chosen = (row for row in rows if (row[2] >= midnight) == tomorrow)
            writer.writerows((*row[:2], row[2].strftime("%Y-%m-%d %H:%M:%S"), *row[3:]) for row in chosen)
    with open(folder / "articles.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("article", "headline", "category"))
        writer.writerows((f"a-{i}", f"Article {i}", TOPICS[topic_I[i]]) for i in range(articles))
    return folder / "impressions.csv"
