"""Runs as rows: regret over seeds, the difference from the base arm, how much of the order the signal has right.

Shapes: S seeds, R test requests.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablations.runs import Run, best_reward, figures_of, order, problem_of
from benchmarks.ablations.settings import Size
from benchmarks.ablations.study import Study
from benchmarks.quality.problem import TEST
from benchmarks.quality.stages import Place
from benchmarks.quality.statistics import holm, of_seeds, over_seeds, paired, paired_over_seeds, spread
from benchmarks.report import Claim, Row, finite


def rows_of(place: Place, size: Size, study: Study, results: dict[Run, dict[str, Any]]) -> list[Row]:
    """One row an arm, then what the study has beside."""
    best = best_reward(place) if study.arms else math.nan
    values: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    for arm in study.arms:
        found = [Run(arm, seed) for seed in range(size.seeds) if "refused" not in results[Run(arm, seed)]]
        row: Row = {"study": study.name, "arm": arm.name, "seeds": len(found), "signal": arm.signal.name}
        rows.append(row)
        if not found:
            row["refused"] = results[Run(arm, 0)]["refused"]
            continue
        kept = [results[run] for run in found]
        right = [order(place, size, arm.signal, run.seed) for run in found]
        own_R = {run.seed: figures_of(place, run)["reward"] for run in found}
        missing_R = np.full_like(own_R[found[0].seed], math.nan)
        values[arm.name] = np.stack([own_R.get(seed, missing_R) for seed in range(size.seeds)])
        if not math.isnan(arm.at):
            row["at"] = arm.at
        row |= {
            "lists": kept[0]["group_size"],
            "own": kept[0]["own_lists"],
            "temperature": _mean(kept, "temperature"),
            "top weight": _mean(kept, "top_weight"),
            "agreement": _mean(right, "agreement"),
            "kendall tau": _mean(right, "kendall_tau"),
            "reward": _mean(kept, "reward"),
            "h@6": _mean(kept, "hit"),
            "regret": round(best - float(np.mean([one["reward"] for one in kept])), 4),
            "sd": round(spread(values[arm.name]), 4),
        }
    _against_base(place, study, rows, values)
    more = study.beside(place, size, study.arms) if study.beside else []
    if study.only:
        more = [{"part": "chosen arms", "only arms with this in their name": study.only}, *more]
    return [*rows, *({"study": study.name, **row} for row in more)]


def _against_base(place: Place, study: Study, rows: list[Row], values: dict[str, np.ndarray]) -> None:
    """Regret less the base's: over the same requests (means over seeds), users as clusters, and of each seed, with a
    test of either; Holm over the arms. `values` are the arms' rewards [S, R], NaN where a seed was refused."""
    pairs = [(row, study.compared_with(row["arm"])) for row in rows if row["arm"] in values]
    pairs = [(row, base) for row, base in pairs if base in values and base != row["arm"]]
    if not pairs:
        return
    users_R, others = problem_of(place).users(TEST), [row for row, _ in pairs]
    gaps = [paired(over_seeds(values[base]), over_seeds(values[row["arm"]]), users_R) for row, base in pairs]
    for row, gap, p in zip(others, gaps, holm(np.array([gap.p for gap in gaps])), strict=True):
        row["regret - base"] = round(gap.mean, 4)
        row["95%"] = f"{gap.low:+.4f} to {gap.high:+.4f}"
        row["Holm p"] = float(f"{p:.2g}")
    tested: list[tuple[Row, float]] = []
    for row, base in pairs:
        theirs_S, own_S = of_seeds(values[base]).astype(float), of_seeds(values[row["arm"]]).astype(float)
        gap_S = theirs_S - own_S
        row |= {f"seed {seed}": round(float(gap), 4) for seed, gap in enumerate(gap_S) if not math.isnan(gap)}
        p = paired_over_seeds(theirs_S, own_S)
        if not math.isnan(p):
            tested.append((row, p))
    for (row, _), p in zip(tested, holm(np.array([p for _, p in tested])), strict=True):
        row["Holm p over seeds"] = float(f"{p:.2g}")


def _mean(found: list[dict[str, Any]], name: str) -> float:
    return float(f"{np.mean([one[name] for one in found]):.4g}")


def markdown(size: Size, studies: list[Study], rows: list[Row], claims: dict[str, list[Claim]]) -> str:
    """All studies as a page."""
    scale = size.scale
    parts = ["# Ablations\n"]
    if any(study.arms for study in studies):
        parts.append(
            f"Simulated world, at most {scale.train_requests} training requests, at most "
            f'{scale.simulated_requests} test requests, {size.seeds} seeds, preset "{scale.preset.name}" (width '
            f"{scale.preset.width}, guide {scale.preset.reward_steps} and ranker {scale.preset.ranker_steps} steps of "
            f"{scale.preset.batch_requests} requests). "
            "Regret: true reward a request below the best list found; `sd` is its spread over seeds. `regret - base` "
            "is taken over the same requests, its interval and `Holm p` over users; they do not say how another "
            "training run would come out. That is what `seed 0`, ... (the same difference of each seed) and `Holm p "
            "over seeds` (a paired t-test of them) are for; with so few seeds only large differences show. Nothing was "
            "tuned.\n"
        )
    for study in studies:
        parts.append(f"## {study.name}\n\n{study.question}\n")
        own = [{key: row[key] for key in row if key != "study"} for row in rows if row["study"] == study.name]
        for kind in dict.fromkeys(row.get("part", "") for row in own):
            heading = [f"{kind[0].upper()}{kind[1:]}:\n"] if kind else []
            parts += [*heading, _table([row for row in own if row.get("part", "") == kind]) + "\n"]
        for made in claims[study.name]:
            says = "holds" if made["holds"] else "**does not hold**"
            parts.append(f"- {made['name']}: {_cell(made['value'])} ({made['target']}): {says}")
        parts.append("")
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "part"))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(file: Path, size: Size, studies: list[Study], rows: list[Row], claims: dict[str, list[Claim]]) -> None:
    """FILE.md, and FILE-STUDY.png of each of several studies or FILE.png of one, beside FILE.json."""
    file.with_suffix(".md").write_text(markdown(size, studies, finite(rows), claims), encoding="utf-8")
    for study in studies:
        own = [row for row in finite(rows) if row["study"] == study.name]
        named = f"{file.stem}-{study.name}" if len(studies) > 1 else file.stem
        study.draw(own, file.with_name(f"{named}.png"))
