"""Two nights side by side: what changed between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.publish_report import headline
from components.publish_report.document import JOINED, figures, groups_step
from components.publish_report.notify import without_rows
from components.publish_report.page import environment
from components.publish_report.report import PAGE
from components.publish_report.sections.gates import GATES
from components.publish_report.sections.lineage import lineage
from components.step import write_atomic
from console.report.chosen import document_of, run_id
from console.report.nights import TEMPLATES
from console.report.pairs import FOLDER, Pair
from console.workspace import Night


def write_comparison(workspace: Path, one: Night, other: Night) -> Path:
    """Write the page of two nights and return its path; the differences are the second's minus the first's."""
    nights = (one, other)
    documents = [document_of(night) for night in nights]
    path = workspace / FOLDER / Pair(run_id(one), run_id(other)).file
    page = (
        environment(TEMPLATES)
        .get_template("compare.html.jinja")
        .render(
            nights=[
                {
                    "run": run_id(night),
                    "verdict": document["verdict"],
                    "headline": headline.headline(document),
                    "reason": without_rows(document["reason"]),
                    "report": f"../nights/{run_id(night)}/{PAGE}" if (night.folder / PAGE).is_file() else None,
                }
                for night, document in zip(nights, documents, strict=True)
            ],
            tables=[table for make in TABLES if (table := make(documents[0], documents[1]))],
        )
    )
    write_atomic(path, page)
    return path


def metrics(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """Challengers' and champions' metrics."""
    rows = []
    for who in ("challenger", "champion"):
        ours, theirs = ((document.get("metrics") or {}).get(who) or {} for document in (a, b))
        rows += [
            _numbers(f"{who}: {name.replace('_', ' ')}", ours.get(name), theirs.get(name), share=True)
            for name in {**ours, **theirs}
        ]
    ours, theirs = ((document.get("difference") or {}) for document in (a, b))
    for against in dict.fromkeys(str(one["against"]) for one in (ours, theirs) if one.get("against")):
        before, after = (one if one.get("against") == against else {} for one in (ours, theirs))
        labels = {"mean": f"challenger over {against}", "low": "its interval, from", "high": "its interval, to"}
        rows += [_numbers(label, before.get(name), after.get(name)) for name, label in labels.items()]
    note = (
        "Each night is judged on its own requests by its own judge, so levels of two nights differ for reasons that "
        "are no ranker's. What a night's challenger has over its own champion compares."
    )
    return _table("Metrics", rows, note)


def checks(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """Statuses of all checks, those that changed first."""
    ours, theirs = a.get("checks") or {}, b.get("checks") or {}
    rows = [_statuses(name.replace("_", " "), ours.get(name), theirs.get(name)) for name in {**ours, **theirs}]
    return _table("Checks", sorted(rows, key=lambda row: not row["changed"]), kind="status")


def slices(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """Mean difference on each slice."""
    ours, theirs = (_slices(document) for document in (a, b))
    return _table(
        "Slices: challenger over champion",
        [_numbers(name, ours.get(name), theirs.get(name)) for name in {**ours, **theirs}],
    )


def off_policy(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """The estimate that decides, and on how much it rests."""
    ours, theirs = ((document.get("off_policy") or {}) for document in (a, b))
    names = {"value": "difference", "low": "its interval, from", "high": "its interval, to"}
    names |= {"effective_sample_size": "effective sample size"}
    return _table(
        "Off-policy estimate", [_numbers(label, ours.get(key), theirs.get(key)) for key, label in names.items()]
    )


def gates(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """Checks, refusals and warnings of each data gate, and the drift of each column."""
    rows = []
    for gate in GATES:
        if gate == JOINED:  # the groups' gate all the same, whatever made them
            continue
        ours, theirs = (_figures(document, gate) for document in (a, b))
        rows += [_numbers(f"{gate}: checks", ours.get("checks"), theirs.get("checks"))]
        rows += [
            _numbers(f"{gate}: {kind.replace('_', ' ')}", _length(ours.get(kind)), _length(theirs.get(kind)))
            for kind in ("refused", "warnings", "not_judged")
        ]
    before, after = (figures(document["outcomes"], "check_features").get("drift") or {} for document in (a, b))
    rows += [_numbers(f"drift of {name}", before.get(name), after.get(name)) for name in {**before, **after}]
    return _table("Data gates and drift", rows)


def training(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """Quality of the reward models, diversity of the groups, end of the ranker's training."""
    rows = []
    for role in ("guide", "judge"):
        ours, theirs = ((document.get("reward_models") or {}).get(role) or {} for document in (a, b))
        rows += [
            _numbers(f"{role}: {key.replace('_', ' ')}", ours.get(key), theirs.get(key)) for key in {**ours, **theirs}
        ]
    told = {
        "generate_groups": ("requests", "distinct_items", "duplicates", "reward_std", "without_signal"),
        "train_ranker": ("greedy_reward", "best_helper_reward", "final_loss", "steps"),
    }
    for step, names in told.items():
        ours, theirs = (_figures(document, step) for document in (a, b))
        rows += [_numbers(f"{step}: {name.replace('_', ' ')}", ours.get(name), theirs.get(name)) for name in names]
    return _table("Training", rows)


def durations(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """Seconds and memory of each step."""
    ours, theirs = a["outcomes"], b["outcomes"]
    rows = [
        _numbers(f"{step}: seconds", ours.get(step, {}).get("seconds"), theirs.get(step, {}).get("seconds"), share=True)
        for step in {**ours, **theirs}
    ]
    rows += [_numbers("all steps: seconds", a.get("seconds"), b.get("seconds"), share=True)]
    rows += [_numbers("peak memory, MB", a.get("peak_memory_mb"), b.get("peak_memory_mb"), share=True)]
    return _table("Time and memory", rows)


def lineages(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """What each was made of."""
    ours, theirs = dict(lineage(a)["rows"]), dict(lineage(b)["rows"])
    rows = [_statuses(what, ours.get(what), theirs.get(what)) for what in {**ours, **theirs}]
    return _table("Lineage", rows, kind="text")


TABLES = (metrics, off_policy, checks, slices, gates, training, durations, lineages)


def _figures(document: dict[str, Any], step: str) -> dict[str, Any]:
    """The figures of a step; of generate_groups those of the whole groups, however many parts they were made in."""
    outcomes = document["outcomes"]
    return figures(outcomes, groups_step(outcomes) if step == "generate_groups" else step)


def _table(title: str, rows: list[dict[str, Any]], note: str = "", kind: str = "number") -> dict[str, Any] | None:
    known = [row for row in rows if row["a"] is not None or row["b"] is not None]
    if not known:
        return None
    return {"title": title, "rows": known, "note": note, "kind": kind, "share": any(row["share"] for row in known)}


def _numbers(name: str, a: Any, b: Any, share: bool = False) -> dict[str, Any]:
    """A row of numbers; `share`: of an amount, whose change as a share of the first means something."""
    ours, theirs = _number(a), _number(b)
    change = theirs - ours if ours is not None and theirs is not None else None
    return {"name": name, "a": ours, "b": theirs, "change": change, "changed": change not in (None, 0), "share": share}


def _statuses(name: str, a: Any, b: Any) -> dict[str, Any]:
    return {"name": name, "a": a, "b": b, "change": None, "changed": a != b, "share": False}


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _length(found: Any) -> int | None:
    return len(found) if isinstance(found, list) else None


def _slices(document: dict[str, Any]) -> dict[str, float | None]:
    found = figures(document["outcomes"], "evaluate_ranker").get("slices")
    return {
        str(part.get("name")).replace("_", " "): (part.get("difference") or {}).get("mean")
        for part in (found if isinstance(found, list) else [])
        if isinstance(part, dict)
    }
