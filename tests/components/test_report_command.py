"""`goalrank report`: a night's page again, two nights side by side, the page of all nights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from console.main import app
from console.night import _write_index
from console.report.nights import write_index
from console.settings import Settings
from console.workspace import RUNNING, Workspace
from tests.components.reported_nights import ReportedNights, shared_nights


@pytest.fixture(scope="module")
def nights() -> ReportedNights:
    return shared_nights()


def run(workspace: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["report", "--workspace", str(workspace), *flags, "--json"])
    return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1])


def test_the_newest_night_by_default_and_any_by_name(nights: ReportedNights) -> None:
    code, newest = run(nights.workspace)
    assert (code, newest["run"], newest["verdict"]) == (0, f"{nights.date}/4", "failed")
    assert run(nights.workspace, "--run", nights.date)[1]["run"] == newest["run"]
    code, first = run(nights.workspace, "--run", f"{nights.date}/1")
    assert (code, first["verdict"]) == (0, "promoted")
    for name in ("report", "model_card", "data", "index"):
        assert Path(first[name]).is_file()


def test_a_report_that_is_gone_is_written_again_as_it_was(nights: ReportedNights) -> None:
    page = nights.kept / "report.html"
    run(nights.workspace, "--run", f"{nights.date}/2")
    before = page.read_bytes()
    page.unlink()
    assert run(nights.workspace, "--run", f"{nights.date}/2")[0] == 0
    assert page.read_bytes() == before


@pytest.mark.parametrize("lost", ["all", "last", "damaged", "half", "report too", "overwritten"])
def test_a_report_outlives_its_outcomes(nights: ReportedNights, tmp_path: Path, lost: str) -> None:
    """Where they are gone or damaged, what was published is not overwritten with "failed"."""
    place = Workspace(tmp_path / "w")
    place.folder.mkdir()
    place.record_logs(tmp_path / "logs")
    night = place.folder / "nights" / nights.date / "1"
    shutil.copytree(nights.promoted, night, ignore=shutil.ignore_patterns("artifacts", "docs", "checkpoints"))
    promotion = night / "outcomes" / "promote_model.json"
    if lost == "last":
        promotion.unlink()
    elif lost == "damaged":
        promotion.write_text("{")
    elif lost == "half":
        promotion.write_text(json.dumps({"step": "promote_model"}))
    else:
        shutil.rmtree(night / "outcomes")
    if lost == "report too":
        (night / "report.json").unlink()
    if lost == "overwritten":  # by a release that did not look
        (night / "report.json").write_text(json.dumps({"verdict": "failed", "outcomes": {}}))
    before = {file: file.read_bytes() for file in night.glob("*") if file.is_file()}
    for flags in ((), ("--run", f"{nights.date}/1")):
        code, document = run(place.folder, *flags)
        assert (code, document["kind"]) == (2, "usage")
        assert "found gone or unreadable" in document["reason"] and "left as it is" in document["reason"]
    assert {file: file.read_bytes() for file in night.glob("*") if file.is_file()} == before
    shutil.copytree(nights.kept, night.with_name("2"), ignore=shutil.ignore_patterns("artifacts", "docs"))
    assert run(place.folder, "--compare", f"{nights.date}/1", f"{nights.date}/2")[0] == 2


def test_a_night_promoted_by_hand_whose_outcomes_say_failed_has_its_report_again(
    nights: ReportedNights, tmp_path: Path
) -> None:
    place = Workspace(tmp_path / "w")
    place.folder.mkdir()
    place.record_logs(tmp_path / "logs")
    night = place.folder / "nights" / nights.date / "1"
    shutil.copytree(nights.failed, night, ignore=shutil.ignore_patterns("artifacts", "docs", "checkpoints"))
    card = json.loads((night / "night.json").read_text())
    (night / "night.json").write_text(json.dumps(card | {"verdict": "promoted", "promoted_by": "hand"}))
    code, done = run(place.folder)
    assert (code, done["verdict"]) == (0, "failed")


def test_a_person_is_told_where_the_pages_are(nights: ReportedNights) -> None:
    result = CliRunner().invoke(app, ["report", "--workspace", str(nights.workspace), "--run", f"{nights.date}/1"])
    assert result.exit_code == 0
    assert f"Night {nights.date}/1: promoted." in result.stdout
    assert str(nights.promoted / "report.html") in result.stdout.replace("\n", "")


def test_two_nights_side_by_side(nights: ReportedNights) -> None:
    code, done = run(nights.workspace, "--compare", f"{nights.date}/1", f"{nights.date}/2")
    assert (code, done["runs"]) == (0, [f"{nights.date}/1", f"{nights.date}/2"])
    page = Path(done["comparison"]).read_text(encoding="utf-8")
    one, other = (json.loads((folder / "report.json").read_text()) for folder in (nights.promoted, nights.kept))
    change = other["metrics"]["challenger"]["judged_reward"] - one["metrics"]["challenger"]["judged_reward"]
    assert f"{change:+.4f}".replace("-", "−") in page
    for title in (
        "Metrics",
        "Off-policy estimate",
        "Checks",
        "Data gates and drift",
        "Training",
        "Time and memory",
        "Lineage",
    ):
        assert re.search(rf"<h2 [^>]*>{title}", page)
    assert page.index("superiority") < page.index("finite"), "what changed comes first"
    index = Path(done["index"])
    link = re.search(rf'href="([^"]+)">{nights.date}/1 against {nights.date}/2</a>', index.read_text(encoding="utf-8"))
    assert link and (index.parent / link[1]).resolve() == Path(done["comparison"]).resolve()
    assert run(nights.workspace, "--compare", f"{nights.date}/3", f"{nights.date}/4")[0] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--run", "yesterday"), "expected a night such as"),
        (("--run", "2026-01-03/0"), "expected a night such as"),
        (("--run", "1999-01-01"), "no night 1999-01-01 found"),
        (("--run", "2026-01-03/1", "--compare", "2026-01-03/1", "2026-01-03/2"), "expected one of them"),
        (("--compare", "2026-01-03/4", "2026-01-03"), "both are night 2026-01-03/4"),
    ],
)
def test_no_such_night(nights: ReportedNights, flags: tuple[str, ...], said: str) -> None:
    code, document = run(nights.workspace, *(flag.replace("2026-01-03", nights.date) for flag in flags))
    assert (code, document["kind"]) == (2, "usage")
    assert said.replace("2026-01-03", nights.date) in document["reason"]


def test_nowhere_and_while_a_night_runs(tmp_path: Path) -> None:
    assert run(tmp_path / "w")[0] == 2
    assert not (tmp_path / "w").exists()
    place = Workspace(tmp_path / "w")
    place.folder.mkdir()
    place.record_logs(tmp_path / "logs")
    assert "no night found" in run(place.folder)[1]["reason"]
    night = place.new_night("2026-01-05", {})
    assert night.verdict == RUNNING
    with place.one_at_a_time():
        assert run(place.folder)[0] == 75
    code, done = run(place.folder)  # it was killed
    assert (code, done["verdict"]) == (0, "failed")


def test_all_nights_stand_on_one_page(nights: ReportedNights) -> None:
    index = write_index(nights.workspace, nights.journal_uri)
    page = index.read_text(encoding="utf-8")
    rows = re.findall(rf'href="({nights.date}/\d/report.html)">{nights.date}/(\d)', page)
    assert [number for _, number in rows] == ["4", "3", "2", "1"]
    assert all((index.parent / link).is_file() for link, _ in rows)
    champion = json.loads((nights.promoted / "report.json").read_text())["model_version"]
    assert f"<dt>champion</dt><dd>version {champion}</dd>" in page
    assert "Judged reward by version" in page


def test_pages_of_several_nights_quote_no_rows(nights: ReportedNights, tmp_path: Path) -> None:
    """Whoever is erased is erased in the nights' folders; these pages lie beside them."""
    quoted = "user_id=1"
    reason = json.loads((nights.refused / "report.json").read_text())["reason"]
    assert quoted in reason
    _, done = run(nights.workspace, "--compare", f"{nights.date}/3", f"{nights.date}/1")
    assert quoted not in Path(done["comparison"]).read_text(encoding="utf-8")
    night = tmp_path / "nights" / nights.date / "1"  # the newest: its reason stands at the top in full
    night.mkdir(parents=True)
    (night / "night.json").write_text(json.dumps({"verdict": "refused", "started_at": 1.0, "reason": reason}))
    page = write_index(tmp_path, str(tmp_path / "journal")).read_text(encoding="utf-8")
    assert "user_stats: expected" in page and quoted not in page


def test_damaged_cards_and_journal_cost_their_rows(nights: ReportedNights, tmp_path: Path) -> None:
    skipped = shutil.ignore_patterns("artifacts", "docs", "checkpoints")
    shutil.copytree(nights.workspace / "nights", tmp_path / "nights", ignore=skipped)
    for number, name in ((2, "night.json"), (3, "night.json"), (3, "report.json"), (1, "report.json")):
        (tmp_path / "nights" / nights.date / str(number) / name).write_text("[1")
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "promotions.jsonl").write_text("not json\n")
    page = write_index(tmp_path, str(tmp_path / "journal")).read_text(encoding="utf-8")
    assert page.count("its card cannot be read") == 1, "of the other its report tells"
    assert "The journal of promotions cannot be read" in page


def test_a_night_is_not_undone_by_its_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nights").write_text("a file where the folder should be")
    _write_index(Settings.load(workspace=tmp_path), Console())
    assert "was not written" in capsys.readouterr().out
