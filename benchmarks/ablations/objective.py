"""Which loss: the paper's likelihood of whole lists, the same renormalised in the group, and their rivals.

Groups, guide and steps are those of every study; only the objective differs. A loss may be best at a temperature of its
own, so several stand beside one another; DPO and RCPO have none (order alone). The last arms change one option of the
default: groups not weighted by signal, every copy of a duplicate counted, a supervised term on the logged feedback.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.figure import bars, panels, save
from benchmarks.ablations.study import Study, by_arm
from benchmarks.report import Claim, Row, claim
from goalrank.objective import ObjectiveConfig

TEMPERATURES = {"full_list": (0.1, 0.25, 0.5, 1.0), "group_renormalised": (0.25, 1.0, 2.0), "reverse_kl": (0.25, 1.0)}
OPTIONS = {
    "without weights by signal": ObjectiveConfig(signal="none"),
    "every copy counts": ObjectiveConfig(duplicates="each"),
    "supervised term 1": ObjectiveConfig(supervised_weight=1.0),
    "supervised term 10": ObjectiveConfig(supervised_weight=10.0),
}
PREFERENCES = {"dpo": ObjectiveConfig(loss="dpo"), "rcpo": ObjectiveConfig(loss="rcpo")}


def _name(loss: str, temperature: float) -> str:
    return f"{loss}, temperature {temperature:g}"


BASE = _name(ObjectiveConfig().loss, ObjectiveConfig().temperature)


def study(thin: bool) -> Study:
    """Each loss at its temperatures, the preference losses, the default with one option changed; thin: one of each."""
    objectives = {
        _name(loss, temperature): ObjectiveConfig(loss=loss, temperature=temperature)  # type: ignore[arg-type]
        for loss, temperatures in TEMPERATURES.items()
        for temperature in temperatures
    }
    if thin:
        objectives = {BASE: objectives[BASE], **dict(list(objectives.items())[-1:])}
    preferences, options = (dict(list(one.items())[:1]) if thin else one for one in (PREFERENCES, OPTIONS))
    arms = [Arm(name, objective=made) for name, made in {**objectives, **preferences, **options}.items()]
    question = "losses and temperatures under the guide; the default first named, then one option of it changed"
    return Study("objective", question, arms, _claims, _draw, base=BASE)


def _claims(rows: list[Row]) -> list[Claim]:
    known = by_arm(rows)
    if BASE not in known:
        return []
    worse = [row["regret"] - known[BASE]["regret"] for name, row in known.items() if name != BASE]
    rivals = [known[name]["regret"] for name in PREFERENCES if name in known]
    made = []
    if worse:
        made.append(claim("regret of the default less the least of the others", -min(worse), "at most", 0.0))
    if rivals:
        name = "regret of the default less the least of the preference losses"
        made.append(claim(name, known[BASE]["regret"] - min(rivals), "at most", 0.0))
    return made


def _draw(rows: list[Row], file: Path) -> None:
    figure, (axes,) = panels(1, height=5.0)
    bars(axes, [row for row in rows if "arm" in row], BASE)
    save(figure, file)
