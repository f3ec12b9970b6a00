"""The watch's benchmark on a few replays: an equal champion stays, a much worse one goes, and the table says so."""

from __future__ import annotations

import json

import pytest

from benchmarks import report, watch


def test_a_few_replays(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        watch.Case(1_500, 0.2, 0.0, 3, looks=6),
        watch.Case(1_500, 0.2, 0.0, 3, looks=6, failing=0.8),
        watch.Case(1_500, 0.2, 0.7, 3, looks=6),
        watch.Case(1_500, 0.2, 0.7, 3, looks=6, failing=1.0),
    ]
    monkeypatch.setattr(watch, "QUICK", cases)
    report.run("watch", watch.rows_of, argv=["--quick"])
    document = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert document["complete"] is True
    assert [row["rolled back"] for row in document["rows"]] == [0.0, 0.0, 1.0, 1.0]
    assert [made["holds"] for made in document["claims"]] == [True, True]
