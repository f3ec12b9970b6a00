"""A webhook is told how the night went, and a night never fails because it could not be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.data_gate import Failure
from components.publish_report.main import run as publish
from components.publish_report.notify import ADDRESS, TRIES, notify
from components.step import Step
from tests.webhook import TOKEN, Webhook, listening

RESULT = {"date": "2026-01-05", "verdict": "kept", "exit_code": 0, "reason": "not better", "metrics": {"much": 1}}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as server:
        yield server


def test_it_is_told_in_few_words(webhook: Webhook) -> None:
    assert notify(RESULT, "/nights/1/report.html", webhook.address) == "the webhook, which answered 200"
    (posted,) = webhook.posted
    assert posted["text"] == "GoalRank, night of 2026-01-05: kept. not better"
    assert (posted["verdict"], posted["exit_code"], posted["report"]) == ("kept", 0, "/nights/1/report.html")
    assert "metrics" not in posted


@pytest.mark.parametrize(
    ("answers", "asked", "said"),
    [
        ([503, 429], 3, "the webhook, which answered 200"),
        ([500] * TRIES, TRIES, "it answered 500"),
        ([404], 1, "it answered 404"),
        ([302], 1, "it answered 302"),
    ],
)
def test_only_what_may_pass_is_tried_again(webhook: Webhook, answers: list[int], asked: int, said: str) -> None:
    webhook.answers = answers
    told = notify(RESULT, "r", webhook.address, pause=0.01)
    assert said in told and TOKEN not in told
    assert webhook.asked == asked


@pytest.mark.parametrize(
    "address",
    [
        "",
        "  ",
        f"file:///{TOKEN}",
        f"ftp://{TOKEN}",
        TOKEN,
        f"http://[{TOKEN}",
        f"http://127.0.0.1:9/{TOKEN}",
        "http://",
    ],
)
def test_an_address_that_is_none_or_away(address: str) -> None:
    told = notify(RESULT, "r", address, pause=0.01)
    assert told.startswith("nobody") and TOKEN not in told


def test_the_report_tells_and_does_not_keep_the_address(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, webhook.address)
    with Step("gate_promotion", str(tmp_path)) as step:
        step.figures, step.reason = {"promote": False}, "not better"
    publish(str(tmp_path), "before 2026-01-06", "SUCCEEDED")
    assert (webhook.posted[0]["date"], webhook.posted[0]["verdict"]) == ("2026-01-05", "kept")
    assert TOKEN not in "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())


def test_a_night_whose_outcomes_nobody_can_read_is_told_too(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, webhook.address)
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / "check_logs.json").write_text("{")
    publish(str(tmp_path), "2026-01-05")
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "failed"
    assert (webhook.posted[0]["verdict"], webhook.posted[0]["exit_code"]) == ("failed", 1)


def test_a_webhook_that_is_away_fails_no_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:9/")
    monkeypatch.setattr("components.publish_report.notify.time.sleep", lambda _: None)
    with Step("gate_promotion", str(tmp_path)) as step:
        step.figures = {"promote": False}
    publish(str(tmp_path), "not a day", "FAILED")
    assert json.loads((tmp_path / "report.json").read_text())["date"] == "not a day"
    assert "nobody" in json.loads((tmp_path / "outcomes" / "publish_report.json").read_text())["figures"]["told"]


def test_rows_that_a_refusal_quotes_are_not_posted(webhook: Webhook) -> None:
    rows = [{"user_id": 4711, "item_id": 3}]
    failures = [Failure("requests", "critical", "no nulls", "2", "deliver it again", rows) for _ in range(2)]
    notify(
        RESULT | {"reason": f"the logs break the data contract: {failures[0]}\nalso {failures[1]}"},
        "r",
        webhook.address,
    )
    (posted,) = webhook.posted
    assert "4711" not in json.dumps(posted)
    expected = "the logs break the data contract: requests: expected no nulls, found 2 (rows are quoted in the report)"
    assert posted["reason"] == expected and expected in str(posted["text"])


def test_a_user_that_a_refusal_names_is_not_posted(webhook: Webhook) -> None:
    notify(RESULT | {"reason": "Feast gives no row of user_stats for user_id 4711 as of today"}, "r", webhook.address)
    (posted,) = webhook.posted
    assert posted["reason"] == "Feast gives no row of user_stats for user_id (see the report) as of today"
