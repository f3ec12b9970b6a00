"""A small synthetic training set, written to the contract, with a planted signal that tests can look for.

Users like a few topics, items have a quality; a click depends on both, on the position, and on the list: an item whose
topic is that of the item just above it is hardly ever clicked. A model that sees items one by one cannot know the last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank.schema import LIST_LENGTH, SELF_SELECTED, TOPIC_BUCKETS, TRAINING_EXAMPLES, training_rows_schema

FIRST_DAY = date(2026, 1, 1)
TOPICS = 6
REPEAT_FACTOR = 0.1
"""Click probability of an item is multiplied by this where the item above it has the same topic."""


@dataclass
class World:
    """Users' tastes and items' qualities, from which clicks are drawn."""

    taste_UK: np.ndarray  # K topics
    quality_I: np.ndarray
    topic_I: np.ndarray
    age_I: np.ndarray
    duration_I: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, users: int, items: int) -> World:
        """A world of that size."""
        return cls(
            taste_UK=rng.normal(0, 1.2, (users, TOPICS)),
            quality_I=rng.normal(0, 0.8, items),
            topic_I=rng.integers(0, TOPICS, items),
            age_I=rng.integers(0, 60, items),
            duration_I=rng.uniform(20, 240, items),
        )

    def click_probability(self, user: int, lists_GL: np.ndarray, list_effect: bool = True) -> np.ndarray:
        """Click probabilities [G, L] of lists of item numbers."""
        topics_GL = self.topic_I[lists_GL]
        logits_GL = self.taste_UK[user][topics_GL] + self.quality_I[lists_GL] - 0.8
        chance_GL = 1 / (1 + np.exp(-logits_GL)) * 0.93 ** np.arange(lists_GL.shape[1])
        if list_effect:
            repeated_GL = topics_GL[:, 1:] == topics_GL[:, :-1]
            chance_GL[:, 1:] *= np.where(repeated_GL, REPEAT_FACTOR, 1.0)
        return chance_GL


def make_training_set(
    directory: str | Path,
    requests: int = 400,
    candidates: int = 20,
    days: int = 3,
    seed: int = 0,
    *,
    users: int = 80,
    items: int = 200,
    self_selected: bool = False,
    list_effect: bool = True,
    watch: bool = True,
) -> World:
    """Write a training set artifact and return the world behind it.

    Args:
        directory: created; receives examples, users and items as Parquet, and training_set.json.
        requests: over all days alike.
        candidates: N of each request.
        days: arrival days from FIRST_DAY on; the last is the evaluation day (`date`).
        seed: of everything.
        users: known users; `user_id` is the user's number plus 1.
        items: known items; `item_id` is the item's number plus 1.
        self_selected: no ranker chose, the shown items are what the user took, no propensities (rating data sets).
        list_effect: whether a repeated topic spoils the click below it.
        watch: whether watch time is logged.
    """
    rng = np.random.default_rng(seed)
    world = World.draw(rng, users, items)
    calendar = [FIRST_DAY + timedelta(days=number) for number in range(days)]
    day_of_request = np.sort(rng.integers(0, days, requests))
    user_of_request = rng.integers(0, users, requests)
    rows = []
    for number in range(requests):
        day = int(day_of_request[number])
        user = int(user_of_request[number])
        rows.append(_request(rng, world, number, user, calendar[day], candidates, items, self_selected))
        rows[-1].update(_feedback(rng, world, user, rows[-1].pop("_slate"), list_effect, watch))
        rows[-1]["user_row"] = day * users + user
        rows[-1]["candidate_rows"] = [day * items + item - 1 for item in rows[-1]["candidates"]]
    rows.sort(key=lambda row: (row["event_time"], row["request_id"]))
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, TRAINING_EXAMPLES), folder / "examples.parquet")
    pq.write_table(_user_rows(rng, world, calendar), folder / "users.parquet")
    pq.write_table(_item_rows(rng, world, calendar), folder / "items.parquet")
    card = {
        "date": calendar[-1].isoformat(),
        "snapshot_id": f"synthetic-{seed}",
        "days": [day.isoformat() for day in calendar],
    }
    (folder / "training_set.json").write_text(json.dumps(card))
    return world


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _request(rng, world, number, user, day, candidates, items, self_selected) -> dict:
    chosen = rng.choice(items, size=candidates, replace=False)
    value = world.taste_UK[user][world.topic_I[chosen]] + world.quality_I[chosen]
    scores = value * 0.5 + rng.normal(0, 1, candidates)
    length = min(LIST_LENGTH, candidates)
    # Gumbel-max over value (the user's own choice) or score (a ranker's): a Plackett-Luce draw of a list.
    utility = value * 1.5 if self_selected else scores
    order = np.argsort(-(utility + rng.gumbel(size=candidates)))[:length]
    weights = np.exp(utility - utility.max())
    left = weights.sum() - np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])
    return {
        "request_id": f"r{number:06d}",
        "user_id": user + 1,
        "event_time": _midnight(day) + timedelta(seconds=int(rng.integers(0, 86_400))),
        "candidates": (chosen + 1).tolist(),
        "candidate_scores": scores.tolist(),
        "policy": SELF_SELECTED if self_selected else "softmax",
        "dt": day.isoformat(),
        "slate": (chosen[order] + 1).tolist(),
        "propensities": None if self_selected else np.clip(weights[order] / left, 1e-6, 1).tolist(),
        "_slate": chosen[order],
    }


def _feedback(rng, world, user, slate, list_effect, watch) -> dict:
    clicks = rng.random(len(slate)) < world.click_probability(user, slate[None, :], list_effect)[0]
    likes = clicks & (rng.random(len(slate)) < 0.3)
    seconds = np.where(clicks, world.duration_I[slate] * rng.uniform(0.2, 1.0, len(slate)), 0.0)
    return {
        "clicks": clicks.astype(int).tolist(),
        "likes": likes.astype(int).tolist(),
        "watch_seconds": seconds.tolist() if watch else None,
    }


def _user_rows(rng: np.random.Generator, world: World, calendar: list[date]) -> pa.Table:
    """One row per (day, user), days first; the very first user is unknown on every day."""
    columns: dict[str, list] = {name: [] for name in training_rows_schema("user_id").names}
    items = len(world.quality_I)
    longest = 30
    pasts = []
    for taste_K in world.taste_UK:
        weight_I = np.exp(taste_K[world.topic_I] + world.quality_I)
        pasts.append(rng.choice(items, size=longest, p=weight_I / weight_I.sum()))
    for number, day in enumerate(calendar):
        for user, past in enumerate(pasts):
            length = min(longest, 3 + user % 20 + 2 * number)
            known = user > 0
            seen = past[:length]
            counts = np.bincount(world.topic_I[seen], minlength=TOPIC_BUCKETS)
            values = {
                "user_id": user + 1,
                "as_of": _midnight(day),
                "attributes": [f"age={user % 5}", f"device={user % 2}"],
                "impressions": length * 4,
                "clicks": length,
                "likes": length // 3,
                "watch_ms": length * 60_000,
                "active_days": number + 1,
                "topic_clicks": counts.tolist(),
                "history_items": (seen + 1).tolist(),
                "history_topics": (1 << world.topic_I[seen]).tolist(),
            }
            for name, value in values.items():
                columns[name].append(value if known or name in ("user_id", "as_of") else None)
    return pa.table(columns, schema=training_rows_schema("user_id"))


def _item_rows(rng: np.random.Generator, world: World, calendar: list[date]) -> pa.Table:
    """One row per (day, item), days first; the very first item is unknown on every day."""
    columns: dict[str, list] = {name: [] for name in training_rows_schema("item_id").names}
    shown_I = rng.poisson(60, len(world.quality_I)) + 1
    clicked_I = rng.binomial(shown_I, 1 / (1 + np.exp(0.8 - world.quality_I)))
    for number, day in enumerate(calendar):
        for item in range(len(world.quality_I)):
            known = item > 0
            shown, clicked = int(shown_I[item]), int(clicked_I[item])
            values = {
                "item_id": item + 1,
                "as_of": _midnight(day),
                "topic_mask": 1 << int(world.topic_I[item]),
                "duration_seconds": float(world.duration_I[item]),
                "title": f"Item {item + 1}",
                "impressions_7d": shown // 2,
                "clicks_7d": clicked // 2,
                "likes_7d": clicked // 6,
                "impressions_total": shown,
                "clicks_total": clicked,
                "likes_total": clicked // 3,
                "watch_ms_total": clicked * 50_000,
                "age_days": int(world.age_I[item]) + number,
            }
            for name, value in values.items():
                columns[name].append(value if known or name in ("item_id", "as_of") else None)
    return pa.table(columns, schema=training_rows_schema("item_id"))
