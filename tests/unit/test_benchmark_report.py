"""benchmarks/report.py: where a result cannot be written is said before anything is measured, by every command line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import report, scaling
from benchmarks.ablations import __main__ as ablations
from benchmarks.quality import __main__ as quality
from benchmarks.report import Claim, Row
from goalrank.errors import EXIT_USAGE

ROWS: list[Row] = [{"name": "a", "value": 1.0}]
TOO_LONG = f"{'x' * 300}.json"
UNREACHED = "expected a file that can be reached"


def never(quick: bool) -> tuple[list[Row], list[Claim]]:
    raise AssertionError("measured")


def begun(*_: object, **__: object) -> None:
    raise AssertionError("begun")


COMMANDS: dict[str, Callable[[Sequence[str]], object]] = {
    "every other": lambda flags: report.run("demo", never, argv=flags),
    "ablations": lambda flags: ablations.main(["--study", "all", *flags]),
    "quality": lambda flags: quality.main(["--world", "simulator", *flags]),
    "scaling": scaling.main,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder.json/, a file, a closed/ folder, a hidden/ one that may not be looked into, an open/ one with a
    closed.json."""
    for name in ("folder.json", "closed", "hidden", "open"):
        (tmp_path / name).mkdir()
    closed = [tmp_path / "closed", tmp_path / "open" / "closed.json"]
    for file in (tmp_path / "file", closed[1]):
        file.touch()
    may, look = os.access, Path.stat

    def stat(file: Path, **how: bool) -> os.stat_result:
        if file.absolute().parent == tmp_path / "hidden":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return look(file, **how)

    # A superuser, who runs tests in containers, may look and write everywhere.
    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file).absolute() not in closed and may(file, mode))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("x.md", "x.md found, expected a file whose name ends with .json"),
        ("open", "open found, expected a file whose name ends with .json"),
        ("folder.json", "the folder folder.json found, expected a file, or none yet"),
        ("file/x.json", "file/x.json found, but {place}/file is a file, expected a folder"),
        ("file/new/x.json", "file/new/x.json found, but {place}/file is a file, expected a folder"),
        ("closed/new/x.json", "closed/new/x.json found, but {place}/closed may not be written; name another file"),
        ("hidden/x.json", f"hidden/x.json found, {UNREACHED} (Permission denied: hidden/x.json)"),
        ("hidden/new/x.json", f"hidden/new/x.json found, {UNREACHED} (Permission denied: {{place}}/hidden/new)"),
        (TOO_LONG, f"{TOO_LONG} found, {UNREACHED} (File name too long: {TOO_LONG})"),
        ("open/closed.json", "open/closed.json found, but open/closed.json may not be written; name another file"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_measured(command, given, found, place, monkeypatch, capsys) -> None:
    for module in (ablations, quality, scaling):
        monkeypatch.setattr(module, "run", begun)
    with pytest.raises(SystemExit) as ended:
        COMMANDS[command](["--json", given])
    assert ended.value.code == EXIT_USAGE
    assert f"argument --json: {found.format(place=place)}\n" in capsys.readouterr().err
    assert not (place / "closed" / "new").exists()


@pytest.mark.parametrize("given", ["new.json", "new/folder/new.json", "open/old.json"])
def test_a_result_is_written_into_new_folders_and_over_an_old_one(given, place) -> None:
    (place / "open" / "old.json").write_text("{}")
    report.run("demo", lambda quick: (ROWS, []), argv=["--json", given])
    assert json.loads((place / given).read_text())["rows"] == ROWS


def test_what_cannot_be_written_after_all_has_been_printed(place, capsys) -> None:
    """The folder goes while the work is done."""

    def rows_of(quick: bool) -> tuple[list[Row], list[Claim]]:
        (place / "new").touch()
        return ROWS, []

    with pytest.raises(FileExistsError):
        report.run("demo", rows_of, argv=["--json", "new/x.json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == ROWS
