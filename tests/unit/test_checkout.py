"""The commit that a night's lineage names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from console import checkout
from goalrank_platform import root


def test_the_commit_of_this_checkout_or_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root(), capture_output=True, text=True).stdout.strip()
    found = checkout.commit().removesuffix("-dirty")
    assert known.startswith(found) if known and "-g" not in found else found
    monkeypatch.setattr(checkout, "root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkout.commit() == checkout.UNKNOWN
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout.commit() == checkout.UNKNOWN, "no git there"
