"""A night's verdict is derived from what its steps wrote, and nothing is taken for granted."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from components.publish_report.main import run as publish
from components.publish_report.result import as_ended, summarise
from components.step import Step
from components.the_night import RUN_VARIABLE, day_of, folder_of
from goalrank.errors import DataRefused, GoalRankError, ModelRefused, ServingRefused, TryAgain


def say(run: Path, step: str, error: GoalRankError | None = None, reason: str = "", **figures: object) -> None:
    try:
        with Step(step, str(run)) as outcome:
            outcome.reason = reason
            outcome.figures = figures
            if error:
                raise error
    except GoalRankError:
        pass


def test_promoted(tmp_path: Path) -> None:
    say(tmp_path, "gate_promotion", promote=True)
    say(tmp_path, "promote_model", reason="version 3 is champion")
    result = summarise(tmp_path)
    assert (result["verdict"], result["exit_code"], result["reason"]) == ("promoted", 0, "version 3 is champion")


def test_kept(tmp_path: Path) -> None:
    say(tmp_path, "gate_promotion", promote=False, reason="not better")
    assert (summarise(tmp_path)["verdict"], summarise(tmp_path)["exit_code"]) == ("kept", 0)


def test_a_yes_without_a_promotion_is_a_failure(tmp_path: Path) -> None:
    say(tmp_path, "gate_promotion", promote=True)
    assert (summarise(tmp_path)["verdict"], summarise(tmp_path)["exit_code"]) == ("failed", 1)


def test_no_outcome_at_all_is_a_failure(tmp_path: Path) -> None:
    assert (summarise(tmp_path)["verdict"], summarise(tmp_path)["exit_code"]) == ("failed", 1)


def test_a_killed_step_can_be_resumed(tmp_path: Path) -> None:
    say(tmp_path, "check_logs")
    Step("extract_features", str(tmp_path)).__enter__()  # said it began, never how it ended
    result = summarise(tmp_path)
    assert (result["verdict"], result["exit_code"]) == ("failed", 75)
    assert "extract_features" in result["reason"]


def test_a_killed_step_is_named_in_the_report_itself(tmp_path: Path) -> None:
    """publish_report is under way itself while it writes; what was killed before it is what counts."""
    say(tmp_path, "check_logs")
    Step("extract_features", str(tmp_path)).__enter__()
    publish(str(tmp_path), "2026-01-02", "FAILED")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["verdict"], report["exit_code"]) == ("failed", 75)
    assert "Ended at extract_features." in (tmp_path / "report.html").read_text()


def test_a_resumed_step_that_ended_is_not_under_way(tmp_path: Path) -> None:
    Step("train_ranker", str(tmp_path)).__enter__()  # killed
    with open(tmp_path / "progress.jsonl", "a") as file:
        file.write('{"step": "train_ranker", "ev\n')  # in the middle of a line
    say(tmp_path, "train_ranker")
    say(tmp_path, "gate_promotion", promote=True)
    say(tmp_path, "promote_model", reason="version 3 is champion")
    assert summarise(tmp_path)["verdict"] == "promoted"


@pytest.mark.parametrize("instead", ["", "7\n", '{"step": "generate_groups_1_of_2", "ev', "\ufffd\x00\n"])
def test_a_line_that_a_network_volume_lost_undoes_no_promotion(tmp_path: Path, instead: str) -> None:
    """Several pods append to one file: one's last line may be gone, or another's be written over it."""
    say(tmp_path, "check_logs")
    for part in (1, 2):
        say(tmp_path, f"generate_groups_{part}_of_2")
    say(tmp_path, "join_groups")
    say(tmp_path, "gate_promotion", promote=True)
    say(tmp_path, "promote_model", reason="version 3 is champion", promoted=True)
    progress = tmp_path / "progress.jsonl"
    lines = progress.read_text().splitlines(keepends=True)
    (lost,) = [n for n, line in enumerate(lines) if '"generate_groups_1_of_2", "event": "end"' in line]
    progress.write_text("".join([*lines[:lost], instead, *lines[lost + 1 :]]), encoding="utf-8")
    assert (summarise(tmp_path)["verdict"], summarise(tmp_path)["exit_code"]) == ("promoted", 0)


def test_an_outcome_of_an_earlier_try_does_not_end_a_step(tmp_path: Path) -> None:
    say(tmp_path, "extract_features")
    say(tmp_path, "check_logs")
    Step("extract_features", str(tmp_path)).__enter__()
    assert summarise(tmp_path)["reason"].startswith("extract_features was interrupted")


def test_a_step_that_was_begun_again_after_it_had_ended_is_under_way(tmp_path: Path) -> None:
    say(tmp_path, "check_logs")
    say(tmp_path, "train_ranker")
    say(tmp_path, "promote_model", promoted=True)
    time.sleep(0.01)
    Step("train_ranker", str(tmp_path)).__enter__()
    assert summarise(tmp_path)["reason"].startswith("train_ranker was interrupted")


def test_a_promotion_that_moved_nothing_is_kept(tmp_path: Path) -> None:
    say(tmp_path, "gate_promotion", promote=True)
    say(tmp_path, "promote_model", promoted=False)
    assert summarise(tmp_path)["verdict"] == "kept"


@pytest.mark.parametrize(
    ("error", "verdict", "code"),
    [
        (DataRefused("x"), "refused", 3),
        (ModelRefused("x"), "refused", 4),
        (ServingRefused("x"), "refused", 5),
        (TryAgain("x"), "failed", 75),
        (GoalRankError("x"), "failed", 1),
    ],
)
def test_first_step_that_did_not_end_well_decides(
    tmp_path: Path, error: GoalRankError, verdict: str, code: int
) -> None:
    say(tmp_path, "check_logs")
    say(tmp_path, "evaluate_ranker", error)
    result = summarise(tmp_path)
    assert (result["verdict"], result["exit_code"]) == (verdict, code)
    assert result["reason"] == "evaluate_ranker: x"


def test_report_escapes_and_stays_inside_itself(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    say(tmp_path, "check_logs", DataRefused(f"item {hostile}"))
    publish(str(tmp_path), "2026-01-02", "FAILED")
    page = (tmp_path / "report.html").read_text()
    assert hostile not in page
    assert "&lt;script&gt;" in page
    assert "src=" not in page.replace("img-src", "")
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "refused"


@pytest.mark.parametrize("began", [True, False])
def test_the_report_of_a_night_that_found_out_its_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    """The exit handler is told what the scheduler said; the first step, if it came so far, left what it means."""
    monkeypatch.setenv(RUN_VARIABLE, "0a1b")
    folder = tmp_path / "scheduled" / "0a1b"
    if began:
        assert day_of("auto", folder_of(f"{tmp_path}/scheduled/auto")) != "auto"
        (folder / "date").write_text("2026-01-07\n")  # the night of 8 January, told after midnight
    publish(f"{tmp_path}/scheduled/auto", "auto", "FAILED")
    report = json.loads((folder / "report.json").read_text())
    assert report["date"] == ("2026-01-07" if began else "an unknown day")


def test_report_shows_checks_slices_and_off_policy_estimates(tmp_path: Path) -> None:
    difference = {"metric": "judged_reward", "mean": -0.25, "low": -0.3, "high": -0.2, "confidence": 0.98}
    part = {"name": "new_users", "requests": 60, "users": 55, "champion": 2.0, "difference": difference}
    small = {"name": "short_lists", "requests": 1, "users": 1, "champion": 2.0, "difference": None, "margin": None}
    estimate = {"estimator": "windowed_dr", "value": 0.125, "low": None, "high": 0.5, "requests": 60}
    say(
        tmp_path,
        "evaluate_ranker",
        metrics={"challenger": {"judged_reward": 2.0}, "champion": {"judged_reward": 2.1}},
        checks=[{"name": "slices", "value": 1.0, "threshold": 0.0, "status": "inconclusive", "detail": "<b>why</b>"}],
        slices=[part | {"margin": 0.04, "status": "inconclusive"}, small | {"status": "not_applicable"}],
        off_policy={
            "setting": "veto",
            "status": "inconclusive",
            "reason": "too few",
            "estimates": {"difference": estimate | {"effective_sample_size": 12.5}},
        },
    )
    publish(str(tmp_path), "2026-01-02", "FAILED")
    page = (tmp_path / "report.html").read_text()
    for text in ("&lt;b&gt;why", "new users", "−0.3 to −0.2", "not applicable", "windowed dr", "12.5", "– to 0.5"):
        assert text in page
    assert re.search(r'class="mark maybe"><span aria-hidden="true">. </span>inconclusive<', page)
    assert json.loads((tmp_path / "report.json").read_text())["outcomes"]["evaluate_ranker"]["figures"]["slices"]


def test_what_an_earlier_try_of_the_folder_said_does_not_count(tmp_path: Path) -> None:
    """On a cluster a night that is submitted again goes on in its folder, from its first step."""
    say(tmp_path, "check_logs")
    say(tmp_path, "gate_promotion", promote=True)
    say(tmp_path, "promote_model", reason="version 3 is champion")
    say(tmp_path, "check_logs")
    say(tmp_path, "gate_promotion", promote=False, reason="not better")
    assert (summarise(tmp_path)["verdict"], summarise(tmp_path)["reason"]) == ("kept", "not better")


def test_a_night_that_begins_anew_owes_nothing_for_what_was_killed_before(tmp_path: Path) -> None:
    say(tmp_path, "check_logs")
    Step("promote_model", str(tmp_path)).__enter__()  # killed; then the same night was submitted again
    say(tmp_path, "check_logs")
    say(tmp_path, "gate_promotion", promote=False, reason="not better")
    assert summarise(tmp_path)["verdict"] == "kept"


def test_a_failure_that_no_step_tells_is_one(tmp_path: Path) -> None:
    """The night is submitted again and its first pod never begins: what lies there is of the try before."""
    say(tmp_path, "check_logs")
    say(tmp_path, "gate_promotion", promote=True)
    say(tmp_path, "promote_model", reason="version 3 is champion")
    publish(str(tmp_path), "2026-01-05", "FAILED")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["verdict"], report["exit_code"]) == ("failed", 75)
    well = summarise(tmp_path)
    assert as_ended(well, "SUCCEEDED") == well
    refused = {"exit_code": 3, "verdict": "refused"}
    assert as_ended(refused, "FAILED") == refused
