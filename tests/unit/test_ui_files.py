"""What `goalrank ui` serves of a night: its report and Data Docs, and nothing else, however it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console.settings import Settings
from console.ui import nights
from console.ui.files import servable

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


def test_the_front_page_lists_every_try_and_what_is_hostile_is_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nights.network, "answers", lambda address: "nobody")
    for number, card in enumerate(
        ({"verdict": "refused", "reason": "<script>alert(1)</script>"}, {"verdict": "kept"}, None), start=1
    ):
        place = folder / "2026-01-05" / str(number)
        place.mkdir(parents=True)
        (place / "night.json").write_text("{" if card is None else json.dumps(card))
    found = {row.run: row for row in nights.rows(folder)}
    assert list(found) == ["2026-01-05/3", "2026-01-05/2", "2026-01-05/1", "2026-01-04/1"]
    assert found["2026-01-05/3"].verdict == found["2026-01-04/1"].verdict == "unreadable"
    assert found["2026-01-04/1"].docs == [("check logs", f"/nights/{NIGHT}/{DOCS}/index.html")]
    page = nights.page(Settings.load(workspace=folder.parent))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "mlflow ui --backend-store-uri" in page
