"""How far the judge is off: judged against true differences of the rankers that were really compared, night by night.

    python -m benchmarks.judge_error WORKSPACE [--json benchmarks/results/judge_error.json]

WORKSPACE is one of a simulated world whose nights were kept (`goalrank replay` keeps them). Every verdict with a
champion names the mean judged reward of challenger, champion and anchor on the same requests, and, since the world is
simulated, the exact expected reward of the same lists. What the verdict's interval covers is the chance of other users;
what this measures it does not cover: a judge is a model, and it errs by about as much whoever comes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Claim, Row, claim, run

PLAUSIBLE = 0.05
"""A judged difference further than this from the truth, as a share of the champion's reward, is told on its own."""


def verdicts(workspace: Path) -> list[dict[str, Any]]:
    """The evaluation verdicts of a workspace's nights, oldest first.

    Raises:
        FileNotFoundError: there is none with a champion and true rewards in it.
    """
    found = []
    for file in sorted(workspace.glob("nights/*/*/artifacts/*/evaluate-ranker/verdict")):
        document = json.loads(file.read_text(encoding="utf-8"))
        champion = document["metrics"].get("champion") or {}
        if champion.get("true_reward") is not None:
            found.append(document)
    if not found:
        raise FileNotFoundError(f"{workspace} holds no night of a simulated world with a champion; live a replay first")
    return found


def row_of(document: dict[str, Any]) -> Row:
    """One night: shares of the champion's reward."""
    challenger, champion = document["metrics"]["challenger"], document["metrics"]["champion"]
    judged, true = ((challenger[kind] - champion[kind]) / champion[kind] for kind in ("judged_reward", "true_reward"))
    status = {check["name"]: check["status"] for check in document["checks"]}
    return {
        "date": document["date"],
        "decision": document["decision"],
        "judged": judged,
        "true": true,
        "error": judged - true,
        "superiority": status["superiority"],
        "off_policy": status["off_policy"],
    }


def measure(workspace: Path) -> tuple[list[Row], list[Claim]]:
    """All nights, a row of their spread, and what is claimed."""
    rows = [row_of(document) for document in verdicts(workspace)]
    usual = np.array([row["error"] for row in rows if _usual(row)])
    promoted = [row for row in rows if row["decision"] == "promote"]
    gains = [row["true"] for row in promoted]
    praised = [row for row in rows if row["superiority"] == "passed" and row["error"] >= PLAUSIBLE]
    rows.append(
        {
            "date": f"{len(usual)} nights within {PLAUSIBLE:.0%}",
            "error": float(usual.mean()),
            "spread": float(usual.std(ddof=1)),
            "correlation": float(
                np.corrcoef([[row["judged"], row["true"]] for row in rows if _usual(row)], rowvar=False)[0, 1]
            ),
        }
    )
    return rows, [
        claim(
            "promoted challengers that are truly better, share", _mean([gain > 0 for gain in gains]), "at least", 0.975
        ),
        claim("mean true gain of those promoted, share of the reward", _mean(gains), "at least", 0.0),
        claim("largest true loss of one promoted, share of the reward", -min(gains, default=np.nan), "at most", 0.01),
        claim(
            "praised and truly far worse: share stopped by the off-policy check",
            _mean([row["off_policy"] == "failed" for row in praised]),
            "at least",
            1.0,
        ),
    ]


def _usual(row: Row) -> bool:
    return abs(row["error"]) < PLAUSIBLE


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    given, others = parser.parse_known_args()
    run("judge_error", lambda _: measure(given.workspace), argv=others)
