"""What `goalrank ui` serves: a night's report and Data Docs, two nights side by side; nothing else, however asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from console.report import pairs
from console.settings import Settings
from console.ui import nights
from console.ui.files import compared, servable

NIGHT = "2026-01-04/1"
DOCS = "artifacts/run-1/check-logs/data_docs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """WORKSPACE/nights with one night in it, and a secret beside."""
    place = tmp_path / "nights"
    for file in (
        "report.html",
        "report.json",
        "night.json",
        "pipeline.log",
        "progress.jsonl",
        "outcomes/check_logs.json",
        "artifacts/run-1/train-ranker/model/weights.safetensors",
        "artifacts/run-1/materialize-features/training_set/users.parquet",
        f"{DOCS}/index.html",
        f"{DOCS}/validations/requests/x.html",
        f"{DOCS}/.hidden.html",
        f"{DOCS}/rows.parquet",
        f"{DOCS}/static/style.css",
    ):
        path = place / NIGHT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "secret.html").write_text("secret")
    (place / NIGHT / DOCS / "out.html").symlink_to(tmp_path / "secret.html")
    (place / NIGHT / DOCS / "up").symlink_to(tmp_path)
    return place


SERVED = ("report.html", "report.json", f"{DOCS}/index.html", f"{DOCS}/validations/requests/x.html")


def test_so_is_the_page_of_all_nights_once_it_is_there(folder: Path) -> None:
    assert servable(folder, "index.html") is None
    (folder / "index.html").write_text("x")
    assert servable(folder, "index.html") == (folder / "index.html").resolve()


@pytest.mark.parametrize("path", [*SERVED, f"{DOCS}/static/style.css"])
def test_reports_and_data_docs_are_served(folder: Path, path: str) -> None:
    assert servable(folder, f"{NIGHT}/{path}") == (folder / NIGHT / path).resolve()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "night.json",
        "pipeline.log",
        "progress.jsonl",
        "outcomes/check_logs.json",
        "artifacts/run-1/train-ranker/model/weights.safetensors",
        "artifacts/run-1/materialize-features/training_set/users.parquet",
        f"{DOCS}",
        f"{DOCS}/",
        f"{DOCS}/none.html",
        f"{DOCS}/.hidden.html",
        f"{DOCS}/rows.parquet",
        f"{DOCS}/out.html",
        f"{DOCS}/up/secret.html",
        f"{DOCS}/../data_docs/index.html",
        f"{DOCS}/../../../../night.json",
        f"{DOCS}//index.html",
        f"{DOCS}/..\\index.html",
        f"{DOCS}/index.html\0",
        "./report.html",
        "artifacts/report.html",
        f"{DOCS}/{'x' * 5000}.html",
    ],
)
def test_nothing_else_is(folder: Path, path: str) -> None:
    assert servable(folder, f"{NIGHT}/{path}") is None


@pytest.mark.parametrize("path", ["report.html", "../secret.html", "/etc/hosts", f"{NIGHT}/../1/report.html", "a/1/b"])
def test_only_below_a_night(folder: Path, path: str) -> None:
    assert servable(folder, path) is None


PAIR = "2026-01-04-1_2026-01-05-12.html"


@pytest.fixture
def comparisons(folder: Path) -> Path:
    """WORKSPACE/comparisons with one page in it, other files, and links that lead out."""
    place = folder.parent / pairs.FOLDER
    place.mkdir()
    for name in (PAIR, "notes.html", f"{PAIR}.part", ".hidden.html"):
        (place / name).write_text("x")
    (place / "2026-01-04-1_2026-01-04-2.html").symlink_to(folder.parent / "secret.html")
    return place


def test_two_nights_side_by_side_are_served(comparisons: Path) -> None:
    assert compared(comparisons, PAIR) == (comparisons / PAIR).resolve()
    assert compared(comparisons.with_name("nothing"), PAIR) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "notes.html",
        ".hidden.html",
        f"{PAIR}.part",
        f"{PAIR}\n",
        f"./{PAIR}",
        f"../comparisons/{PAIR}",
        "../secret.html",
        "2026-01-04-1_2026-01-04-2.html",
        "2026-01-04-1_2026-01-04-3.html",
        "2026-01-04-0_2026-01-04-1.html",
        "2026-01-04-1.html",
        f"2026-01-04-{'1' * 5000}_2026-01-04-1.html",
    ],
)
def test_nothing_else_of_the_comparisons_is(comparisons: Path, name: str) -> None:
    assert compared(comparisons, name) is None


def test_the_front_page_leads_to_comparisons_the_last_written_first(
    comparisons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nights.network, "answers", lambda address: "nobody")
    for number in range(1, pairs.SHOWN + 2):
        name = pairs.Pair(f"2026-02-01/{number}", "2026-02-02/1").file
        (comparisons / name).write_text("x")
        os.utime(comparisons / name, (2e9 + number, 2e9 + number))
    found = pairs.newest(comparisons.parent)
    assert len(found) == pairs.SHOWN and found[0] == pairs.Pair(f"2026-02-01/{pairs.SHOWN + 1}", "2026-02-02/1")
    page = nights.page(Settings.load(workspace=comparisons.parent))
    assert page.index(f'href="/comparisons/{found[0].file}"') < page.index(f'href="/comparisons/{found[1].file}"')
    assert all(compared(comparisons, pair.file) for pair in found) and "notes.html" not in page


def test_the_front_page_lists_every_try_and_what_is_hostile_is_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nights.network, "answers", lambda address: "nobody")
    reason = f"<script>alert(1)</script> {'x ' * 20}, for example user_id=4711 watch_ms=-7"
    cards = ({"verdict": "refused", "reason": reason}, {"verdict": "kept", "reason": "y " * 999}, None)
    for number, card in enumerate(cards, start=1):
        place = folder / "2026-01-05" / str(number)
        place.mkdir(parents=True)
        (place / "night.json").write_text("{" if card is None else json.dumps(card))
    found = {row.run: row for row in nights.rows(folder)}
    assert list(found) == ["2026-01-05/3", "2026-01-05/2", "2026-01-05/1", "2026-01-04/1"]
    assert len(found["2026-01-05/2"].reason) <= nights.LONGEST_REASON
    assert "4711" not in found["2026-01-05/1"].reason, "rows are quoted by the report alone"
    assert found["2026-01-05/3"].verdict == found["2026-01-04/1"].verdict == "unreadable"
    assert found["2026-01-04/1"].docs == [("check logs", f"/nights/{NIGHT}/{DOCS}/index.html")]
    page = nights.page(Settings.load(workspace=folder.parent))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "mlflow ui --backend-store-uri" in page
