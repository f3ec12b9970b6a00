"""The gates fail closed: whatever Great Expectations does not positively confirm is a refusal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.data_gate import CRITICAL, WARNING, Gate
from components.step import Step
from goalrank.errors import DataRefused

FRAME = pd.DataFrame({"key": ["a", "b", "c", "d", "e"], "value": [1.0, -2.0, -3.0, -4.0, -5.0]})


def at_least_0(severity: str = CRITICAL, column: str = "value") -> Any:
    from great_expectations import expectations as gxe

    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=0, severity=severity, description="0 or more", notes="take the absolute value"
    )


def decide(folder: Path, frame: pd.DataFrame, suite: list[Any], **how: Any) -> Step:
    """One table through one gate; the step with its figures."""
    with Step("gate", str(folder / "run")) as step:
        with Gate("gate", str(folder / "docs")) as gate:
            gate.check("numbers", frame, suite, ["key"], **how)
        gate.decide(step, "the numbers")
    return step


def test_a_failed_check_is_refused_with_three_rows(tmp_path: Path) -> None:
    with pytest.raises(DataRefused) as refused:
        decide(tmp_path, FRAME, [at_least_0()])
    assert str(refused.value) == (
        "the numbers break the data contract: numbers: expected 0 or more, found 4 of 5 rows otherwise, for example "
        "key=b value=-2.0; key=c value=-3.0; key=d value=-4.0. To mend: take the absolute value"
    )


def test_a_warning_is_reported_and_lets_pass(tmp_path: Path) -> None:
    step = decide(tmp_path, FRAME, [at_least_0(WARNING)])
    assert len(step.figures["warnings"]) == 1 and step.figures["checks"] == 2


def test_an_empty_table_is_refused_though_every_map_expectation_passes(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="numbers: expected at least one row, found 0"):
        decide(tmp_path, FRAME[:0], [at_least_0()])


def test_a_check_that_crashes_is_refused_even_if_it_was_a_warning(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"the check itself crashed .*nowhere"):
        decide(tmp_path, FRAME, [at_least_0(WARNING, column="nowhere")])


def test_a_check_without_a_result_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gate("warm", str(tmp_path / "warm")):  # imports Great Expectations with the gate's own settings
        import great_expectations

    whole = great_expectations.Checkpoint.run

    def lossy(self: Any, **arguments: Any) -> Any:
        outcome = whole(self, **arguments)
        for validation in outcome.run_results.values():
            validation.results.pop()
        return outcome

    monkeypatch.setattr(great_expectations.Checkpoint, "run", lossy)
    with pytest.raises(DataRefused, match="no result at all"):
        decide(tmp_path, FRAME.head(1), [at_least_0(WARNING)])


def test_a_gate_that_checked_nothing_is_refused(tmp_path: Path) -> None:
    with Step("gate", str(tmp_path / "run")) as step, Gate("gate", str(tmp_path / "docs")) as gate:
        pass
    with pytest.raises(DataRefused, match="no check was run"):
        gate.decide(step, "the numbers")


def test_data_docs_are_there_after_a_crash_of_the_step(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Gate("gate", str(tmp_path / "docs")) as gate:
        gate.check("numbers", FRAME, [at_least_0()], ["key"])
        raise RuntimeError
    assert (tmp_path / "docs" / "index.html").is_file()


def test_data_docs_hold_no_value_of_the_logs(tmp_path: Path) -> None:
    from great_expectations import expectations as gxe

    frame = FRAME.assign(key="<script>alert(1)</script>")
    known = gxe.ExpectColumnValuesToBeInSet(column="key", value_set=["a"], description="known keys", notes="drop it")
    with pytest.raises(DataRefused, match="key=<script>"):
        decide(tmp_path, frame, [known])
    pages = [page.read_text() for page in (tmp_path / "docs").rglob("*.html")]
    assert any("known keys" in page for page in pages)
    assert not any("alert(1)" in page for page in pages)


LOADS = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)\s*=\s*["']?(?:https?:)?//|url\(['"]?(?:https?:)?//""", re.I
)


def test_data_docs_load_nothing_from_outside_and_run_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataRefused):
        decide(tmp_path, FRAME, [at_least_0()])
    pages = {page: page.read_text() for page in (tmp_path / "docs").rglob("*.html")}
    assert len(pages) == 3
    for page, text in pages.items():
        assert not LOADS.search(text), page
        assert "<script" not in text and "Content-Security-Policy" in text
    assert not any(LOADS.search(sheet.read_text()) for sheet in (tmp_path / "docs").rglob("*.css"))


def test_the_index_says_what_failed_and_links_to_it(tmp_path: Path) -> None:
    with pytest.raises(DataRefused):
        decide(tmp_path, FRAME, [at_least_0(), at_least_0(WARNING)])
    index = (tmp_path / "docs" / "index.html").read_text()
    assert '<td class="text-danger">refused</td><td>3</td><td>1</td><td>1</td>' in index
    links = re.findall(r'href="([^"]+)"', index)
    assert len(links) == 2 and all((tmp_path / "docs" / link).is_file() for link in links)


def test_one_cause_that_crashes_many_checks_is_told_once(tmp_path: Path) -> None:
    suite = [at_least_0(column="nowhere"), at_least_0(WARNING, column="nowhere"), at_least_0()]
    with pytest.raises(DataRefused) as refused:
        decide(tmp_path, FRAME, suite)
    assert "and 1 more checks of this table did" in str(refused.value)
    assert str(refused.value).count("crashed") == 1
    assert "also 2. numbers: expected 0 or more, found the check itself" not in str(refused.value)


def test_what_is_not_judged_is_said_and_a_refusal_ends_with_the_way_out(tmp_path: Path) -> None:
    with Step("gate", str(tmp_path / "run")) as step:
        with Gate("gate", str(tmp_path / "docs")) as gate:
            gate.check("numbers", FRAME.head(1), [at_least_0()], ["key"])
            gate.leave_unjudged("the volume (2 days)")
        gate.decide(step, "the numbers")
    assert step.reason == "the numbers: 2 checks passed; not judged: the volume (2 days)"
    assert step.figures["not_judged"] == ["the volume (2 days)"]
    with Gate("gate", str(tmp_path / "docs")) as gate:
        gate.check("numbers", FRAME, [at_least_0()], ["key"])
    with pytest.raises(DataRefused) as refused:
        gate.decide(step, "the numbers", "To go on: skip them")
    assert str(refused.value).endswith("\nTo go on: skip them")
