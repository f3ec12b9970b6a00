"""Point 23: names and URIs that climb, cut off, decode to something else or begin a second line, are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components import registry
from components.gate_promotion.main import gate
from components.promote_model import journal
from console.main import app
from goalrank import naming
from goalrank.errors import ModelRefused, UsageError
from tests.faults.conftest import Seen

TYPED = ["..", "a/../b", "a#b", "%2e%2e", "a%2fb", "a\nb"]
TRAPS = [*TYPED, "a\x00b"]  # no terminal can pass that one on


def run(*flags: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*flags, "--json"], env=environment)
    return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1])["reason"]


def test_workspace_paths(tmp_path: Path, seen: Seen) -> None:
    commands = (["nightly"], ["resume"], ["history"], ["promote"], ["rollback", "--reason", "x"], ["watch", "--once"])
    codes = set()
    for trap in (*TYPED, "a?b"):
        for command in commands:
            code, reason = run(*command, "--workspace", f"{tmp_path}/{trap}/w")
            assert (code, "--workspace" in reason) == (2, True), (command, trap, reason)
            codes.add(code)
    assert list(tmp_path.iterdir()) == []
    seen(f"{len(commands)} commands with {len(TYPED) + 1} traps in --workspace", f"exit {codes}, no folder made")


def test_uris_in_settings(tmp_path: Path, seen: Seen) -> None:
    names = ("TRACKING_URI", "JOURNAL_URI", "SNAPSHOTS_URI", "FEAST_URI")
    codes = set()
    for name in names:
        for trap in TYPED:
            value = f"sqlite:///{tmp_path}/{trap}/mlflow.db" if name == "TRACKING_URI" else f"{tmp_path}/{trap}/x"
            place = ("--workspace", str(tmp_path / "w"))
            code, reason = run("rollback", "--reason", "x", *place, **{f"GOALRANK_{name}": value})
            assert (code, f"GOALRANK_{name}" in reason) == (2, True), (name, trap, reason)
            codes.add(code)
    assert list(tmp_path.iterdir()) == []
    seen(f"{len(TYPED)} traps in each of {', '.join(names)}", f"exit {codes}")


@pytest.mark.parametrize("trap", TRAPS)
def test_where_the_uris_are_used(tmp_path: Path, trap: str) -> None:
    """A step run alone has no settings: the registry and the journal look for themselves."""
    with pytest.raises(UsageError, match="tracking URI"):
        registry.connect(f"sqlite:///{tmp_path}/{trap}/mlflow.db")
    with pytest.raises(UsageError, match="journal URI"), journal.lock(f"{tmp_path}/{trap}", "who"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_password_may_hold_encoded_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://goalrank:p%2Fss%23@db.example:5432/mlflow"
    assert naming.require_address("tracking URI", uri) == uri
    with pytest.raises(UsageError) as refusal:
        naming.require_address("tracking URI", uri + "/../other")
    assert "ss%23" not in str(refusal.value)


def test_dates_versions_and_runs(tmp_path: Path, seen: Seen) -> None:
    place = ["--workspace", str(tmp_path / "w")]
    traps = [*TYPED, "2026-02-30", "2026-01-01\n", "1/../2026-01-01", "٢٠٢٦-01-01"]
    asked = (
        ["promote", "--run"],
        ["promote", "--date"],
        ["nightly", "--date"],
        ["rollback", "--reason", "x", "--to"],
    )
    codes = set()
    for trap in traps:
        for flags in asked:
            code, reason = run(*flags, trap, *place)
            assert (code, repr(trap) in reason) == (2, True), (flags, reason)
            codes.add(code)
        for check in (naming.require_day, naming.arrival_day, naming.require_version):
            with pytest.raises(UsageError):
                check("it", trap)
    assert not (tmp_path / "w" / "nights").exists()
    seen(f"{len(traps)} traps in --date, --run, --to", f"exit {codes}")


DOCUMENT = {
    "tracking_uri": "sqlite:////somewhere/mlflow.db",
    "run_id": "0123456789abcdef0123456789abcdef",
    "snapshot_id": "s1",
    "date": "2026-01-08",
    "ranker": {"name": registry.RANKER, "version": "2", "weights_sha256": "a" * 64},
    "reward": {"name": registry.REWARD, "version": "2", "weights_sha256": "b" * 64},
}


def test_a_registration_with_a_trap_in_it(tmp_path: Path, seen: Seen) -> None:
    path = tmp_path / "registration"
    path.write_text(json.dumps(DOCUMENT))
    assert registry.read_registration(path)["date"] == DOCUMENT["date"]
    fields = ("tracking_uri", "run_id", "date", "ranker.name", "ranker.version", "reward.name", "reward.version")
    for field in fields:
        for trap in TRAPS:
            document = json.loads(json.dumps(DOCUMENT))
            part, _, key = field.rpartition(".")
            (document[part] if part else document)[key] = trap
            path.write_text(json.dumps(document))
            with pytest.raises(ModelRefused):
                registry.read_registration(path)
            with pytest.raises(ModelRefused):
                gate(str(path), str(path), str(path), str(tmp_path / "run"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"registration", "run"}
    seen(f"{len(TRAPS)} traps in {len(fields)} fields of a registration", "the gate refused each")
