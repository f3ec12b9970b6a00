"""Nights and days of a replay as one document, and what retraining was worth.

Each day's requests are put to champion, frozen model and retriever alike, so differences are paired. Their intervals
come from the verdict's own cluster bootstrap over users: other users and requests of this same world and this same
history of models. Another seed of training would give other models; the intervals do not say how different.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from console.replay.ledger import Ledger
from console.replay.world import EXPLORATION, FIRST_NIGHT_DAYS, LOGGING_SHARE
from goalrank.verdict import paired_bootstrap

POLICIES = ("champion", "frozen", "retriever", "served", "best")

SHORT_REASON = 110


def history(ledger: Ledger, days: Path) -> dict[str, Any]:
    """The whole replay so far, as `goalrank replay --json` prints it."""
    differences, users, lived = [np.zeros(0)], [np.zeros(0, dtype=np.int64)], []
    for entry in ledger.days:
        table = pq.read_table(days / f"{entry['date']}.parquet")
        reward = {name: table[name].to_numpy() for name in POLICIES}
        differences.append(reward["champion"] - reward["frozen"])
        users.append(table["user_id"].to_numpy())
        lived.append(
            {
                **entry,
                "requests": table.num_rows,
                "reward": {name: float(values.mean()) for name, values in reward.items()},
                "difference": _interval(differences[-1], users[-1]),
                "difference_so_far": _interval(np.concatenate(differences), np.concatenate(users)),
            }
        )
    verdicts = [run["verdict"] for run in ledger.runs]
    return {
        "plan": {name: value for name, value in vars(ledger.plan).items() if name != "world"},
        "first_night_days": FIRST_NIGHT_DAYS,
        "logging_share": LOGGING_SHARE,
        "exploration": EXPLORATION,
        "frozen_version": ledger.frozen["version"] if ledger.frozen else None,
        "counts": {verdict: verdicts.count(verdict) for verdict in ("promoted", "kept", "refused")},
        "runs": ledger.runs,
        "days": lived,
    }


def _interval(differences_R: np.ndarray, users_R: np.ndarray) -> dict[str, float]:
    """Mean a request with its 95% interval, and all of it in sum."""
    found = paired_bootstrap(differences_R, users_R, metric="true_reward")
    requests = len(differences_R)
    return {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "sum": found.mean * requests,
        "sum_low": found.low * requests,
        "sum_high": found.high * requests,
    }


def short(reason: str) -> str:
    """The first words of a reason, on one line."""
    line = " ".join(reason.split())
    return line if len(line) <= SHORT_REASON else line[: SHORT_REASON - 3] + "..."


def value_in_words(document: dict[str, Any]) -> str:
    """What retraining was worth, in a sentence."""
    if not document["days"]:
        return "no day has been served yet"
    days = document["days"]
    total, requests = days[-1]["difference_so_far"], sum(day["requests"] for day in days)
    mean = {
        name: np.average([d["reward"][name] for d in days], weights=[d["requests"] for d in days]) for name in POLICIES
    }
    return (
        f"{len(days)} days, {requests:,} requests: true reward a request {mean['champion']:.4f} retrained nightly, "
        f"{mean['frozen']:.4f} frozen, {mean['retriever']:.4f} retriever's order, {mean['best']:.4f} best list found; "
        f"retraining against frozen {total['mean']:+.4f} a request (95% interval {total['low']:+.4f} to "
        f"{total['high']:+.4f}), {total['sum']:+,.0f} in all ({total['sum_low']:+,.0f} to {total['sum_high']:+,.0f})"
    )
