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
from goalrank.verdict import PROMOTION_CONFIDENCE

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
    errors = np.array([row["error"] for row in rows])
    usual = errors[np.abs(errors) < PLAUSIBLE]
    promoted = [row for row in rows if row["decision"] == "promote"]
    rows.append(
        {
            "date": f"{len(usual)} nights within {PLAUSIBLE:.0%}",
            "error": float(usual.mean()),
            "spread": float(usual.std(ddof=1)),
        }
    )
    share = float(np.mean([row["true"] > 0 for row in promoted])) if promoted else float("nan")
    true_of = {name: [row["true"] for row in rows[:-1] if row["superiority"] == name] for name in ("passed", "failed")}
    worse = [row["true"] for row in promoted]
    return rows, [
        claim("promoted challengers that are truly better, share", share, "at least", PROMOTION_CONFIDENCE),
        claim("mean true gain of those promoted", float(np.mean(worse)) if worse else float("nan"), "at least", 0.0),
        claim("worst true loss of one promoted, as a share", -min(worse, default=float("nan")), "at most", 0.01),
        claim(
            "judged better and truly far worse, stopped by the off-policy check",
            float(sum(row["off_policy"] == "failed" for row in rows[:-1] if row["error"] >= PLAUSIBLE)),
            "at least",
            float(sum(row["error"] >= PLAUSIBLE for row in rows[:-1])),
        ),
        claim(
            "mean true difference, superiority passed minus failed",
            float(np.mean(true_of["passed"]) - np.mean(true_of["failed"])) if all(true_of.values()) else float("nan"),
            "at least",
            0.0,
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    given, others = parser.parse_known_args()
    run("judge_error", lambda _: measure(given.workspace), argv=others)
