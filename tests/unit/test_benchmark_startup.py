"""The start-up benchmark's table and claims, on made-up times; what cannot start is no measurement."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.startup import HELP, HELP_SECONDS, LOOK, Spent, Way, judged, start, ways


def times(wall: float, cpu: float) -> list[Spent]:
    return [Spent(wall * factor, cpu * factor) for factor in (0.9, 1.0, 3.0)]


def test_medians_ratios_and_claims() -> None:
    spent = {HELP: times(0.2, 0.1), LOOK: times(0.4, 0.3), "mlflow --help": times(2.0, startup.FASTER * 0.099)}
    rows, claims = judged(spent)
    of = {row["command"]: row for row in rows}
    assert of[LOOK]["wall_p50_s"] == pytest.approx(0.4)
    assert (of[LOOK]["wall_min_s"], of[LOOK]["wall_max_s"]) == (pytest.approx(0.36), pytest.approx(1.2))
    assert of["mlflow --help"]["wall_of_ours"] == pytest.approx(10.0)
    assert [made["holds"] for made in claims] == [True, False]
    (slow, *_) = judged(spent | {HELP: times(HELP_SECONDS * 1.01, 0.1)})[1]
    assert not slow["holds"]


def test_a_rival_that_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not {"mlflow --help", "feast --help"} & ways(tmp_path).keys()


def test_what_does_not_start_is_no_measurement(tmp_path: Path) -> None:
    took = start(Way((sys.executable, "-c", "pass"), {}), tmp_path)
    assert took.cpu > 0 and 0 < took.wall < 30
    with pytest.raises(RuntimeError, match="ended with 3"):
        start(Way((sys.executable, "-c", "raise SystemExit(3)"), {}), tmp_path)
    with pytest.raises(RuntimeError, match="ended with 0"):
        start(Way((sys.executable, "-c", "0"), {}), tmp_path)
