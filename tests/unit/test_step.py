"""Outcome files: every way a step can end is written down with its exit code."""

from __future__ import annotations

import errno
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from components.step import Step, write_atomic
from goalrank.errors import DataRefused, ModelRefused, ServingRefused, TryAgain


def outcome_of(tmp_path: Path, error: BaseException | None) -> dict[str, object]:
    expected = pytest.raises(type(error)) if error else nullcontext()
    with expected, Step("check_logs", str(tmp_path)) as step:
        step.figures["rows"] = 3
        if error:
            raise error
    return json.loads((tmp_path / "outcomes" / "check_logs.json").read_text())


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (None, "done", 0),
        (DataRefused("no rows"), "data_refused", 3),
        (ModelRefused("nan"), "model_refused", 4),
        (ServingRefused("other list"), "serving_refused", 5),
        (TryAgain("store away"), "try_again", 75),
        (OSError(errno.ENOSPC, "No space left on device"), "try_again", 75),
        (OSError(errno.ENOENT, "No such file"), "failed", 1),
        (ZeroDivisionError("division by zero"), "failed", 1),
    ],
)
def test_outcome_says_how_the_step_ended(tmp_path: Path, error: Exception | None, kind: str, code: int) -> None:
    outcome = outcome_of(tmp_path, error)
    assert (outcome["kind"], outcome["exit_code"]) == (kind, code)
    assert outcome["figures"] == {"rows": 3}
    if error and kind != "try_again":
        assert str(error) in str(outcome["reason"])


def test_the_error_goes_on_so_that_kfp_fails_the_task(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no rows"), Step("check_logs", str(tmp_path)):
        raise DataRefused("no rows")


def test_progress_is_followed_line_by_line(tmp_path: Path) -> None:
    with Step("train_ranker", str(tmp_path)) as step:
        for done in range(5):
            step.progress(done + 1, 5, "steps")
    events = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events][:2] == ["start", "progress"]
    assert (events[-2]["done"], events[-1]["kind"]) == (5, "done")


def test_write_atomic_leaves_nothing_aside(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", "1")
    write_atomic(tmp_path / "a.json", "2")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "2"
