"""Outcome files: every way a step can end is written down with its exit code."""

from __future__ import annotations

import errno
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from components.step import LONGEST_REASON, RESERVED_BYTES, QuietStep, Step, run_alone, write_atomic
from goalrank.errors import EXIT_BUG, DataRefused, ModelRefused, ServingRefused, TryAgain


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
    assert outcome["peak_memory_mb"] > 10
    if error and kind != "try_again":
        assert str(error) in str(outcome["reason"])


def test_a_full_disk_is_known_behind_other_errors(tmp_path: Path) -> None:
    wrapped = RuntimeError("write failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert outcome_of(tmp_path, wrapped)["exit_code"] == 75
    told = outcome_of(tmp_path, RuntimeError("java.io.IOException: No space left on device"))
    assert told["exit_code"] == 75


def test_room_is_kept_for_the_outcome_and_given_back(tmp_path: Path) -> None:
    with Step("check_logs", str(tmp_path)):
        (reserve,) = (tmp_path / "outcomes").iterdir()
        assert reserve.stat().st_size == RESERVED_BYTES
    assert [file.name for file in (tmp_path / "outcomes").iterdir()] == ["check_logs.json"]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--rows", "3", "--strict", "true"], 0, ""),
        (["--rows", "0", "--strict", "no"], 3, "data_refused: no rows"),
        (["--rows", "3", "--strict", "ture"], 2, "'ture' found, expected true or false"),
    ],
)
def test_a_step_run_alone_ends_with_its_own_code(
    flags: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(rows: int, strict: bool) -> None:
        if not rows:
            raise DataRefused("no rows")

    monkeypatch.setattr("sys.argv", ["step", *flags])
    ended = pytest.raises(SystemExit) if code else nullcontext()
    with ended as stopped:
        run_alone(run)
    if code:
        assert stopped.value.code == code
    assert said in capsys.readouterr().err


def test_the_error_goes_on_so_that_kfp_fails_the_task(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no rows"), Step("check_logs", str(tmp_path)):
        raise DataRefused("no rows")


def test_a_java_stack_is_left_out_of_the_reason(tmp_path: Path) -> None:
    stack = "\n".join(f"\tat org.apache.spark.Thing{number}.run(Thing.scala:{number})" for number in range(500))
    with pytest.raises(RuntimeError), Step("extract_features", str(tmp_path)):
        raise RuntimeError(f"An error occurred.\n: FileNotFound: part-0.parquet\n{stack}\nCaused by: the same\n{stack}")
    reason = json.loads((tmp_path / "outcomes/extract_features.json").read_text())["reason"]
    assert reason.startswith("RuntimeError: An error occurred. : FileNotFound: part-0.parquet")
    assert len(reason) <= LONGEST_REASON + 4 and "Thing" not in reason


def test_an_error_without_words_still_has_an_outcome(tmp_path: Path) -> None:
    class Gone(Exception):
        def __str__(self) -> str:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    with pytest.raises(Gone), Step("spark", str(tmp_path)):
        raise Gone
    outcome = json.loads((tmp_path / "outcomes" / "spark.json").read_text(encoding="utf-8"))
    assert (outcome["kind"], outcome["exit_code"]) == ("failed", EXIT_BUG)
    assert outcome["reason"] == "Gone: its words are lost (ConnectionRefusedError)"


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


def test_a_quiet_step_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with QuietStep("train_ranker", str(tmp_path)) as step:
        step.progress(1, 2, "half")
    with pytest.raises(ModelRefused), QuietStep("train_ranker", str(tmp_path)):
        raise ModelRefused("loss is nan")
    assert list(tmp_path.iterdir()) == []
    assert "train_ranker, beside the first process: ModelRefused: loss is nan" in capsys.readouterr().err
