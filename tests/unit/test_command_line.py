"""The command line where no night begins: exit codes, messages, and --json that is always JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.main import app

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


@pytest.mark.parametrize("request_text", ["{", "[1]", "[" * 100_000])
def test_a_request_that_is_no_object(tmp_path: Path, request_text: str) -> None:
    result = CliRunner().invoke(app, ["rank", "--workspace", str(tmp_path), "-"], input=request_text)
    assert result.exit_code == 2
    assert "expected an object with user_id and candidates" in result.stderr


def test_help_says_what_the_exit_codes_mean() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "75 try again" in result.stdout
