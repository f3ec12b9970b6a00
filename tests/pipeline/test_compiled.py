"""The compiled pipeline is the source's own, and the console shows the steps it has."""

from __future__ import annotations

from pathlib import Path

import yaml

from pipelines import STEPS
from pipelines.compile import COMPILED, compile_nightly


def test_compiled_file_is_up_to_date(tmp_path: Path) -> None:
    compile_nightly(tmp_path / "nightly.yaml")
    fresh = (tmp_path / "nightly.yaml").read_text()
    assert (COMPILED / "nightly.yaml").read_text() == fresh, "run `make compile` and commit the result"


def test_every_step_is_in_the_pipeline() -> None:
    spec = next(yaml.safe_load_all((COMPILED / "nightly.yaml").read_text()))
    executors = {name.removeprefix("exec-").replace("-", "_") for name in spec["deploymentSpec"]["executors"]}
    assert executors == set(STEPS)


def test_promotion_hangs_on_a_condition_over_the_gate() -> None:
    spec = next(yaml.safe_load_all((COMPILED / "nightly.yaml").read_text()))
    dags = [component["dag"]["tasks"] for component in spec["components"].values() if "dag" in component]
    conditions = [
        task["triggerPolicy"]["condition"] for tasks in dags for task in tasks.values() if "triggerPolicy" in task
    ]
    assert any("gate-promotion" in condition and "== true" in condition for condition in conditions)
