"""The replay's bad-data night against the real logs' gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.check_logs.main import run
from console.replay.faults import Fault, damage
from goalrank import simulator
from goalrank.errors import DataRefused
from goalrank.simulator import WorldConfig

WORLD = WorldConfig(seed=5, users=60, items=40, requests_per_day=120, candidates=10, new_items_per_day=3)


def test_the_bad_night_is_refused_and_says_why(tmp_path: Path) -> None:
    logs, date = tmp_path / "logs", WORLD.date_of(1).isoformat()
    simulator.write_days(WORLD, 0, 2, str(logs))
    damage(Fault.bad_data, logs, date, tmp_path / "aside")
    with pytest.raises(DataRefused) as refused:
        run(str(logs), str(tmp_path / "snapshots"), date, False, str(tmp_path / "docs"), str(tmp_path / "run"))
    assert refused.value.exit_code == 3
    for said in ("user_id never null", "each (request_id, position) once", date):
        assert said in str(refused.value)
