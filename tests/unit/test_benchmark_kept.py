"""Results kept on disk when two studies that share a cache make the same piece at once: the first to end counts."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kept import kept, made_once, result_of
from benchmarks.quality import settings, stages
from benchmarks.quality.stages import SIMULATOR, Place, Task, folder_of, perform
from goalrank.errors import UsageError

OTHERS = {"by": "the other"}


def own(_: Path) -> dict[str, Any]:
    return {"by": "this one"}


def overtaken(folder: Path) -> dict[str, Any]:
    """While this one works, the other study makes the same folder."""

    def work(aside: Path) -> dict[str, Any]:
        kept(folder, lambda _: dict(OTHERS))
        (aside / "large").write_text("own")
        return own(aside)

    return kept(folder, work)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    first = kept(tmp_path / "piece", own)
    assert first["by"] == "this one" and first["seconds"] >= 0.0
    assert kept(tmp_path / "piece", lambda _: pytest.fail("made again")) == first


def test_a_study_that_is_overtaken_takes_the_others_result(tmp_path: Path) -> None:
    found = overtaken(tmp_path / "piece")
    assert found["by"] == "the other" and result_of(tmp_path / "piece") == found
    assert [file.name for file in tmp_path.rglob("*")] == ["piece", "result.json"]  # nothing of its own is left


def test_a_study_that_comes_too_late_does_not_begin(tmp_path: Path) -> None:
    """The other ended between the look and the start."""
    kept(tmp_path / "piece", lambda _: dict(OTHERS))
    assert not made_once(tmp_path / "piece", lambda _: pytest.fail("made again"))
    assert result_of(tmp_path / "piece")["by"] == "the other"


def test_a_folder_without_a_result_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "piece" / "part").mkdir(parents=True)
    with pytest.raises(UsageError, match="a folder that is not empty"):
        kept(tmp_path / "piece", own)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), UsageError("wrong"), ValueError("no number")])
def test_what_fails_in_the_work_is_raised_though_the_other_ended(error: Exception, tmp_path: Path) -> None:
    def fails(_: Path) -> dict[str, Any]:
        kept(tmp_path / "piece", lambda _: dict(OTHERS))
        raise error

    with pytest.raises(type(error), match=str(error.args[-1])):
        kept(tmp_path / "piece", fails)
    assert [file.name for file in tmp_path.iterdir()] == ["piece"]


def test_a_stage_of_the_quality_study_that_is_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(SIMULATOR, settings.QUICK, tmp_path, Path("unused"))
    task = Task("data", stages.KINDS[SIMULATOR][0])

    def overtaken_stage(*_: Any) -> dict[str, Any]:
        monkeypatch.setitem(stages._WORK, "data", lambda *_: dict(OTHERS))
        assert not perform(place, task)["cached"]
        return {"by": "this one"}

    monkeypatch.setitem(stages._WORK, "data", overtaken_stage)
    found = perform(place, task)
    assert found["by"] == "the other" and found["cached"]
    assert perform(place, task) == found
    assert [file.name for file in folder_of(place, task).parent.iterdir()] == [folder_of(place, task).name]
