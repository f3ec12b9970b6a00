"""The command line where no night begins: exit codes, messages, and --json that is always JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components.night_card import FORMAT
from components.serve_model.bodies import ISSUED_PREFIX, parse_rank
from console.main import app
from console.workspace import Workspace
from tests.command_tree import walk

PROMISED_KEYS = {
    "exit_code",
    "verdict",
    "reason",
    "model_version",
    "snapshot_id",
    "run_id",
    "stages",
    "metrics",
    "report",
    "peak_memory_mb",
}


@pytest.mark.parametrize(
    ("flags", "code", "verdict", "said"),
    [
        (["nightly", "--date", "tomorrow"], 2, "failed", "expected a day such as"),
        (["nightly", "--preset", "huge"], 2, "failed", "preset 'huge' found"),
        (["nightly", "--logs", "nowhere"], 3, "refused", "expected folders dt="),
        (["nightly", "--date", "2126-01-01"], 2, "failed", "ahead of the simulated world"),
        (["resume"], 2, "failed", "there has been none"),
    ],
)
def test_json_is_an_object_even_when_nothing_starts(
    tmp_path: Path, flags: list[str], code: int, verdict: str, said: str
) -> None:
    result = CliRunner().invoke(app, [*flags, "--workspace", str(tmp_path / "w"), "--json"])
    document = json.loads(result.stdout.strip().splitlines()[-1])
    assert document.keys() >= PROMISED_KEYS
    assert (result.exit_code, document["exit_code"], document["verdict"]) == (code, code, verdict)
    assert said in document["reason"]
    assert not (tmp_path / "w" / "workspace.json").exists(), "a refused command must not claim the workspace"


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    flags = ["nightly", "--workspace", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, flags, env={"GOALRANK_WINDOW_DAYS": "many"})
    assert result.exit_code == 2
    assert "window_days" in json.loads(result.stdout)["reason"]


def test_a_file_as_workspace(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("")
    result = CliRunner().invoke(app, ["nightly", "--workspace", str(tmp_path / "w")])
    assert result.exit_code == 2
    assert "cannot be a folder" in result.stderr


@pytest.mark.parametrize("command", [["report"], ["ui", "--no-open", "--port", "0"], ["clean"], ["migrate"]])
def test_no_command_takes_a_file_for_a_workspace(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "w").write_text("")
    result = CliRunner().invoke(app, [*command, "--workspace", str(tmp_path / "w")])
    assert result.exit_code == 2
    assert "found to be a file, expected a folder" in result.stderr and "choose another" in result.stderr


@pytest.mark.parametrize("command", ["doctor", "report", "nightly", "ui", "clean", "history"])
def test_an_empty_workspace_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = CliRunner().invoke(app, [command, "--workspace", ""])
    assert typed.exit_code == 2 and "shell variable" in " ".join(typed.stderr.split())
    in_environment = CliRunner().invoke(app, [command], env={"GOALRANK_WORKSPACE": ""})
    assert in_environment.exit_code == 2 and "shell" in in_environment.stderr + in_environment.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("logs", [{}, {"logs": None}, {"logs": ""}, {"logs": 7}])
def test_a_workspace_card_without_logs_is_usage(tmp_path: Path, logs: dict[str, Any]) -> None:
    (tmp_path / "workspace.json").write_text(json.dumps({"format": FORMAT, "folder": str(tmp_path)} | logs))
    result = CliRunner().invoke(app, ["ui", "--no-open", "--port", "0", "--workspace", str(tmp_path)])
    assert result.exit_code == 2
    assert "workspace.json names no logs" in result.stderr and "restore it" in result.stderr


@pytest.mark.parametrize("request_text", ["{", "[1]", "[" * 100_000])
def test_a_request_that_is_no_object(tmp_path: Path, request_text: str) -> None:
    result = CliRunner().invoke(app, ["rank", "--workspace", str(tmp_path), "-"], input=request_text)
    assert result.exit_code == 2
    assert "expected an object with user_id and candidates" in result.stderr


@pytest.mark.parametrize("words", ["nightly", "history", "report --workspace {}", "migrate --workspace {}"])
def test_a_current_folder_that_was_deleted_is_usage(tmp_path: Path, words: str) -> None:
    """Of any workspace: torch cannot be loaded there."""
    (tmp_path / "workspace").mkdir()
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-m", "goalrank_platform", *words.format(tmp_path / "workspace").split(), "--json"]
    leaving = f"import os, sys; os.rmdir({str(gone)!r}); os.execv(sys.executable, {command!r})"
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", leaving],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    document = json.loads(done.stdout)
    assert "the current folder was deleted" in document["reason"] and "cd into one" in document["reason"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("logged", "asked"), [("live-7", "live-7"), (f"{ISSUED_PREFIX}7", None)])
def test_an_example_bears_the_id_of_the_request_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: str, asked: str | None
) -> None:
    """And what is asked is a request that the service would take, though it may have made that id itself."""
    day = tmp_path / "logs" / "requests" / "dt=2026-01-05"
    day.mkdir(parents=True)
    row = {"request_id": logged, "user_id": 3, "candidates": [5, 6], "candidate_scores": [0.2, 0.1]}
    pq.write_table(pa.Table.from_pylist([row]), day / "a.parquet")
    Workspace(tmp_path / "w").folder.mkdir()
    Workspace(tmp_path / "w").record_logs(tmp_path / "logs")

    def answered(feast_uri: str, tracking_uri: str, request: dict[str, Any]) -> dict[str, Any]:
        body = parse_rank(request)
        assert (body.request_id, body.item_ids) == (asked, [5, 6])
        return {"items": body.item_ids}

    monkeypatch.setattr("components.serve_model.main.rank_once", answered)
    result = CliRunner().invoke(app, ["rank", "--workspace", str(tmp_path / "w"), "--example"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"request_id": logged, "items": [5, 6]}


def test_help_says_what_the_exit_codes_mean() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "75 try again" in result.stdout


@pytest.mark.skipif(not psutil.LINUX, reason="reads /proc to meet the very first moment")
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0])
def test_sigterm_in_the_first_moments_still_ends_with_json(tmp_path: Path, seconds: float) -> None:
    """From the command's first line on, long before the night has a folder."""
    command = [sys.executable, "-c", "from goalrank_platform import main; main()", "nightly", "--json"]
    night = subprocess.Popen(
        [*command, "--workspace", str(tmp_path / "w")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    term = 1 << (signal.SIGTERM - 1)
    while not int(Path(f"/proc/{night.pid}/status").read_text().split("SigBlk:")[1].split()[0], 16) & term:
        assert night.poll() is None
        time.sleep(0.0005)
    time.sleep(seconds)
    night.send_signal(signal.SIGTERM)
    said, _ = night.communicate(timeout=60)
    document = json.loads(said.strip().splitlines()[-1])
    assert document.keys() >= PROMISED_KEYS
    assert (night.returncode, document["exit_code"], document["verdict"]) == (75, 75, "failed")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["clean"], "holds no workspace"),
        (["migrate"], "holds no workspace"),
        (["erase-user", "7"], "holds no workspace"),
        (["erase-user", "0"], "expected an id of at least 1"),
        (["clean", "--keep-nights", "1"], "expected at least 2 nights"),
        (["clean", "--keep-days", "6"], "7 days (the verdict's anchor)"),
    ],
)
def test_upkeep_of_nothing(tmp_path: Path, flags: list[str], said: str) -> None:
    result = CliRunner().invoke(app, [*flags, "--workspace", str(tmp_path / "w"), "--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["kind"]) == (2, "usage")
    assert said in document["reason"]
    assert not (tmp_path / "w").exists()


VALUES = {"TEXT": "x", "DATE": "2026-01-05", "NAMES": "champion,retriever", "SOURCE": "nowhere", "USER_ID": "7"}
MORE = {"nightly": ["--date", "tomorrow"], "replay": ["--preset", "huge"]}
"""Flags with which a command that would do its work here stops at once."""
SMALL = ["--days", "2", "--users", "10", "--items", "60", "--requests-per-day", "10"]


def with_json(path: tuple[str, ...], command: Any, folder: Path) -> list[str]:
    """The command with what it must be given, in a folder where there is nothing."""
    words = [*path, *MORE.get(" ".join(path), []), *(SMALL if path == ("simulate",) else [])]
    for parameter in command.params:
        if parameter.required:
            value = VALUES.get(parameter.metavar, str(folder / "out"))
            words += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return [*words, "--json"]


JSON_COMMANDS = [(path, one) for path, one in walk() if any("--json" in p.opts for p in one.params)]


@pytest.mark.parametrize(("path", "command"), JSON_COMMANDS, ids=[" ".join(path) for path, _ in JSON_COMMANDS])
def test_json_is_one_object_on_standard_output_and_nothing_else(
    tmp_path: Path, path: tuple[str, ...], command: Any
) -> None:
    words = with_json(path, command, tmp_path)
    result = CliRunner().invoke(app, words, env={"GOALRANK_WORKSPACE": str(tmp_path / "w")})
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code, (words, result.stderr)
    assert result.exit_code in (0, 2, 3), (words, result.stderr)
    if result.exit_code:
        assert document.get("reason") or document.get("findings")


def test_what_to_type_next_is_no_result(tmp_path: Path) -> None:
    """A suggestion names the workspace, goes to standard error, and is left out with --json."""
    words = ["history", "--workspace", str(tmp_path / "w")]
    person, program = (CliRunner().invoke(app, [*words, *more]) for more in ([], ["--json"]))
    assert person.stdout == "No night has run here yet.\n"
    assert f"nightly --allow-bootstrap --workspace {tmp_path / 'w'}" in person.stderr
    assert "Next:" not in program.stdout + program.stderr
