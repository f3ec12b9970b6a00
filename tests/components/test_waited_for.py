"""A job whose step is gone notices: by what is said on the volume, and by no other machine's clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.train_ranker.waited_for import LOOK_SECONDS, PATIENCE_SECONDS, Listener, say
from pipelines.cluster import RETRY_SECONDS


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_somebody_waits_as_long_as_something_is_said(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "waited_for"
    say(file)
    listener = Listener(file, clock=clock)
    for _ in range(10):
        clock.now += PATIENCE_SECONDS * 0.9
        say(file)
        assert not listener.nobody_waits()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("ever", [True, False], ids=["fell silent", "never said a word"])
def test_nobody_waits(tmp_path: Path, clock: Clock, ever: bool, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "waited_for"
    if ever:
        say(file)
    listener = Listener(file, clock=clock)
    clock.now += PATIENCE_SECONDS
    assert not listener.nobody_waits() and capsys.readouterr().err == ""
    clock.now += LOOK_SECONDS
    assert listener.nobody_waits()
    assert "nobody has waited for this job for 1815 s" in capsys.readouterr().err


def test_a_word_at_the_last_moment_is_heard(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "waited_for"
    say(file)
    listener = Listener(file, clock=clock)
    clock.now += PATIENCE_SECONDS - 1
    assert not listener.nobody_waits()
    say(file)
    clock.now += 2
    assert not listener.nobody_waits()


def test_the_next_try_is_heard(tmp_path: Path, clock: Clock) -> None:
    """A file that is away for a moment, or cannot be read, is silence and no word."""
    file = tmp_path / "waited_for"
    say(file)
    listener = Listener(file, clock=clock)
    file.unlink()
    clock.now += PATIENCE_SECONDS * 0.9
    assert not listener.nobody_waits()
    file.write_bytes(b"\xff")
    clock.now += PATIENCE_SECONDS * 0.05
    assert not listener.nobody_waits()
    say(file)
    clock.now += PATIENCE_SECONDS * 0.9
    assert not listener.nobody_waits()


def test_a_volume_that_is_full_ends_no_step(tmp_path: Path) -> None:
    say(tmp_path / "no" / "folder" / "waited_for")


def test_a_step_that_is_tried_again_comes_in_time() -> None:
    assert PATIENCE_SECONDS > 4 * RETRY_SECONDS, (
        "a machine and an image for its pod, and reading its inputs, come on top"
    )
