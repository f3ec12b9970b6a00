"""What CI lacks fails there: no test that it can run is skipped without a word."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import lacking
from tests.cluster import schemas

CI = Path(__file__).parents[2] / ".ci" / "run"


def test_what_is_lacking_is_skipped_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such thing"):
        lacking.skip("no such thing")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="in CI nothing may be lacking: no such thing"):
        lacking.skip("no such thing")


def test_so_do_the_operators_schemas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(schemas, "CRDS", tmp_path / "crds")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="GOALRANK_SHARED"):
        schemas.require_crds()
    schemas.CRDS.mkdir()
    schemas.require_crds()


def test_ci_says_that_it_is_ci(tmp_path: Path) -> None:
    """Its own script, with a `make` and a system's packages that only say what they were told."""
    for name, said in {
        "make": f'echo "$CI" >> {tmp_path}/told',
        "dpkg": "yes 'Status: install ok installed' | head -99",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    (checkout / ".ci" / "run").write_bytes(CI.read_bytes())
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", checkout / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "told").read_text().splitlines()
    assert len(told) > 4 and set(told) == {"1"}
