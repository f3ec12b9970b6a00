"""goalrank promote, rollback and history, on a workspace laid out as the night leaves it."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from components import registry
from components.promote_model import journal
from console.main import app
from console.promotion import print_history
from tests.components.promoted_workspace import PromotedWorkspace
from tests.components.untrained_models import NightInputs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Version 1 is champion; the night of version 2 stopped before its promotion."""
    inputs = NightInputs(tmp_path_factory.mktemp("inputs"), requests=120)
    place = PromotedWorkspace(tmp_path_factory.mktemp("place") / "workspace", inputs).promoted(1)
    place.night(2, 1)
    return place


@pytest.fixture
def place(made):
    path = Path(made.journal_uri) / journal.FILE
    before, cards = path.read_bytes(), {night: (night / "night.json").read_bytes() for night in made.nights}
    yield made
    path.write_bytes(before)
    for night, card in cards.items():
        (night / "night.json").write_bytes(card)
    client = registry.connect(made.tracking_uri)
    for name in (registry.RANKER, registry.REWARD):
        registry.point(client, name, registry.CHAMPION, "1")
        registry.point(client, name, registry.PREVIOUS, None)


def run(place, command: str, *flags: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, [command, "--workspace", str(place.folder), *flags, "--json"])
    document = json.loads(result.stdout.strip().splitlines()[-1])
    assert document["exit_code"] == result.exit_code
    return result.exit_code, document


# ------------------------------------------------------------------------------------------------------------ promote


def test_the_newest_night_with_verdicts_is_promoted_by_its_own_documents(place):
    code, done = run(place, "promote", "--dry-run")
    assert (code, done["promoted"], done["dry_run"], done["version"]) == (0, True, True, "2")
    assert place.aliases()[0] == ("1", None)
    assert len(journal.read(place.journal_uri)) == 2
    code, done = run(place, "promote")
    assert (code, done["promoted"], done["run"]) == (0, True, "/".join(place.nights[1].parts[-2:]))
    assert place.aliases() == [("2", "1"), ("2", "1")]
    assert journal.read(place.journal_uri)[-2]["by"] == "hand"
    assert json.loads((place.nights[1] / "night.json").read_text())["verdict"] == "promoted"
    code, done = run(place, "promote")
    assert (code, done["promoted"]) == (0, False)


def test_documents_of_a_resumed_night_lie_in_several_folders(place, tmp_path):
    artifacts = place.nights[1] / "artifacts"
    shutil.copytree(artifacts, tmp_path / "kept")
    try:
        (artifacts / "goalrank-nightly-2").mkdir()
        shutil.move(artifacts / "goalrank-nightly-1" / "smoke-serve", artifacts / "goalrank-nightly-2" / "smoke-serve")
        assert run(place, "promote", "--dry-run")[1]["version"] == "2"
    finally:
        shutil.rmtree(artifacts)
        shutil.copytree(tmp_path / "kept", artifacts)


@pytest.mark.parametrize("missing", ["evaluate-ranker/verdict", "smoke-serve/verdict", "register-model/registration"])
def test_a_document_that_is_missing_or_empty_is_a_no(place, missing):
    (path,) = place.nights[1].glob(f"artifacts/*/{missing}")
    whole = path.read_bytes()
    try:
        path.write_bytes(b"{}")
        assert run(place, "promote", "--date", place.inputs.date)[0] == 4
        path.unlink()
        code, document = run(place, "promote", "--run", "/".join(place.nights[1].parts[-2:]))
        assert (code, "nobody has said yes" in document["reason"]) == (4, True)
    finally:
        path.write_bytes(whole)
    assert place.aliases()[0] == ("1", None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--date", "2026-01-01", "--run", "2026-01-01/1"], "expected one of them"),
        (["--date", "2020-01-01"], "no night 2020-01-01 found"),
        (["--run", "2020-01-01/7"], "no night 2020-01-01/7 found"),
        (["--run", "2020-01-01"], "the number of the try"),
    ],
)
def test_a_night_that_is_not_there(place, flags, said):
    code, document = run(place, "promote", *flags)
    assert (code, said in document["reason"]) == (2, True), document


def test_an_empty_workspace(tmp_path):
    empty = PromotedWorkspace.__new__(PromotedWorkspace)
    empty.folder = tmp_path / "w"
    code, document = run(empty, "promote")
    assert (code, document["reason"].startswith(f"no night found in {empty.folder}; run")) == (2, True), document
    assert run(empty, "rollback", "--reason", "x")[0] == 2
    assert run(empty, "history")[1]["entries"] == []
    assert not empty.folder.exists()


# ------------------------------------------------------------------------------------------------------------ history


def test_history_joins_nights_and_journal(place):
    run(place, "promote")
    run(place, "rollback", "--reason", "clicks halved")
    place.card(place.nights[1], "kept", "2")  # the same date run again
    code, document = run(place, "history")
    told = [(entry["what"], entry["version"], entry["champion"], entry["by"]) for entry in document["entries"]]
    assert told[0] == ("promoted", "1", "1", "night")
    assert ("promoted", "2", "2", "hand") in told and ("rolled back", "2", "1", "hand") in told
    assert ("kept", "2", None, None) in told
    assert len(told) == document["total"] == 4
    _, newest = run(place, "history", "--limit", "1")
    assert newest["entries"] == document["entries"][-1:]
    (rolled_back,) = [entry for entry in document["entries"] if entry["what"] == "rolled back"]
    assert (rolled_back["date"], rolled_back["reason"]) == (place.inputs.date, "clicks halved")


def test_a_damaged_card_is_told_and_a_damaged_journal_refused(place):
    (place.nights[1] / "night.json").write_text("{")
    _, document = run(place, "history")
    assert document["entries"][-1]["what"] == "failed" and "cannot be read" in document["entries"][-1]["reason"]
    code, refused = run(place, "promote")
    assert (code, "goalrank history" in refused["reason"]) == (4, True)
    place.card(place.nights[1], "failed", "2")
    path = Path(place.journal_uri) / journal.FILE
    path.write_bytes(path.read_bytes().replace(b'"kind"', b'"kin\xff"'))
    for command in (["history"], ["rollback", "--reason", "x"], ["promote"], ["watch", "--once"]):
        code, refused = run(place, *command)
        assert (code, "line 1" in refused["reason"]) == (4, True), (command, refused)
    assert place.aliases()[0] == ("1", None)


def test_the_table_fits_sixty_columns_and_shows_reasons_as_they_are(place):
    run(place, "rollback", "--to", "none", "--reason", "[bold]no[/] markup, " + "long " * 30)
    _, document = run(place, "history")
    written = io.StringIO()
    print_history(document, Console(file=written, width=60))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert "[bold]no[/]" in written.getvalue() and "1→none" in written.getvalue()
