"""`goalrank ab-test` on a real Feast store and a real MLflow registry of a small simulated world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from components import registry
from components.experiments.features import OnlineFeatures
from components.experiments.outputs import FIGURE, RESULT
from components.experiments.past import before
from components.experiments.policies import parse
from components.feature_store import online_rows, open_store
from components.materialize_features.main import run as materialize
from components.publish_report.main import run as publish
from components.publish_report.sections.experiment import FILE
from console.main import app
from console.workspace import Workspace
from goalrank import schema
from goalrank.ab_test import ALPHA, METRICS
from goalrank.baselines import NAMES
from goalrank.checkpoint import save_model
from goalrank.dataset import batch_from_rows
from goalrank.encoders import ModelSizes
from goalrank.errors import UsageError
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.simulator import WorldConfig, day_requests, write_days
from goalrank.simulator.world import FIRST_ITEM_ID, FIRST_USER_ID
from tests.components.tiny_snapshot import feature_row, write_snapshot

torch.set_num_threads(1)

LAST = "2026-01-04"
FIRST_DAY = 4  # the day after LAST
WORLD = WorldConfig(
    seed=5, users=200, items=70, requests_per_day=300, candidates=20, new_users_per_day=2, new_items_per_day=2
)


def register(folder: Path, tracking_uri: str, seed: int, alias: str | None) -> None:
    """A random ranker as a registered version."""
    torch.manual_seed(seed)
    sizes = ModelSizes.from_preset(preset("tiny"))
    source = folder / f"version-{seed}"
    card = save_model(source / registry.MODEL_FOLDER, Ranker(sizes), "ranker", sizes.to_dict(), {"seed": seed}, {})
    client = registry.connect(tracking_uri)
    if not client.search_registered_models():
        client.create_registered_model(registry.RANKER)
    tags = {"weights_sha256": card["weights_sha256"], registry.FEATURE_SET: schema.feature_set()}
    made = client.create_model_version(registry.RANKER, str(source), tags=tags)
    if alias:
        client.set_registered_model_alias(registry.RANKER, alias, made.version)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after a night: the world's card, features online until LAST, a champion and version 2."""
    folder = tmp_path_factory.mktemp("ab") / "w"
    place = Workspace(folder)
    folder.mkdir()
    (folder / "logs").mkdir()
    (folder / "logs" / "world.json").write_text(WORLD.to_json())
    place.record_logs(folder / "logs")
    assert FIRST_USER_ID == 1, "write_snapshot counts its users from 1"
    items = range(FIRST_ITEM_ID, FIRST_ITEM_ID + WORLD.item_count(3))
    rows = {(view.name, LAST): [feature_row(view, key, LAST, seed=0) for key in items] for view in schema.ITEM_VIEWS}
    artifact = write_snapshot(folder / "snapshots", LAST, 2, WORLD.user_count(3), 12, extra=rows, requests=2)
    night = place.new_night(LAST, {})
    materialize(str(artifact), str(folder / "feast"), str(night.folder / "training_set"), 2, str(night.folder))
    tracking_uri = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    register(folder, tracking_uri, 3, registry.CHAMPION)
    register(folder, tracking_uri, 4, None)
    publish(str(night.folder), LAST, "SUCCEEDED")
    return folder


def run(workspace: Path, *flags: str) -> tuple[int, dict, str]:
    result = CliRunner().invoke(app, ["ab-test", "--workspace", str(workspace), "--json", *flags])
    return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1]), result.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_test_of_three_policies_leaves_the_logs_alone(workspace: Path, tmp_path: Path) -> None:
    before = files(workspace / "logs")
    plot = tmp_path / "plot.png"
    code, result, shown = run(
        workspace, "--policies", "champion,version:2,retriever", "--days", "3", "--plot", str(plot)
    )
    assert code == 0
    assert files(workspace / "logs") == before
    assert result["control"] == "champion" and result["features_of"] == LAST
    assert [look["date"] for look in result["looks"]] == ["2026-01-05", "2026-01-06", "2026-01-07"]
    assert set(result["looks"][-1]["lifts"]) == {"version:2", "retriever"}
    assert set(result["looks"][-1]["lifts"]["retriever"]) == set(METRICS)
    assert sum(result["looks"][-1]["requests"].values()) == 3 * WORLD.requests_per_day
    assert result["policies"]["version:2"]["version"] == "2"
    folder = Path(result["folder"])
    kept = json.loads((folder / RESULT).read_text())
    assert kept == {name: value for name, value in result.items() if name not in ("folder", "report", "exit_code")}
    assert plot.read_bytes() == (folder / FIGURE).read_bytes() and plot.read_bytes().startswith(b"\x89PNG")
    assert "Split as planned: yes" in shown and f"{100 * (1 - ALPHA):.0f}%" in shown


def test_a_table_for_people_fits_sixty_columns(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from console import command

    monkeypatch.setattr(command.stdout, "width", 60)
    flags = ["ab-test", "--workspace", str(workspace), "--policies", "champion,retriever", "--days", "2"]
    result = CliRunner().invoke(app, flags)
    assert result.exit_code == 0
    table = [line for line in result.stdout.splitlines() if not line.startswith(("Kept in", "Shown in"))]
    assert max(map(len, table)) <= 60, result.stdout
    for word in ("champion (control)", "retriever", "watch seconds", " to ", "true r*"):
        assert word in result.stdout, result.stdout


def test_the_report_of_the_night_shows_the_newest_test(workspace: Path) -> None:
    flags = ("--policies", "champion,retriever", "--days", "2", "--seed", "9")
    _, result, _ = run(workspace, *flags)
    report = Path(result["report"])
    page = report.read_text()
    assert "A/B test in the simulated world" in page and result["reason"][1:] in page
    assert page.count("<svg") >= 2
    assert json.loads((report.parent / "report.json").read_text())["state"] == "SUCCEEDED"
    # A file that cannot be read costs the section and nothing else.
    (report.parent / FILE).write_text("{}")
    publish(str(report.parent), LAST, "SUCCEEDED")
    assert "A/B test" not in report.read_text()


def test_a_promoted_nights_report_outlives_its_outcomes(workspace: Path) -> None:
    (night,) = Workspace(workspace).nights()
    card, report = night.folder / "night.json", night.folder / "report.json"
    kept = {file: file.read_bytes() for file in (card, report)}
    card.write_text(json.dumps(json.loads(card.read_text()) | {"verdict": "promoted"}))
    report.write_text(json.dumps(json.loads(report.read_text()) | {"verdict": "promoted"}))
    published = report.read_bytes()
    damaged = night.folder / "outcomes" / "promote_model.json"
    damaged.write_text("{")
    try:
        code, result, said = run(workspace, "--policies", "champion,retriever", "--days", "1")
        assert (code, result["report"]) == (0, None)
        assert "left as it is" in said and report.read_bytes() == published
    finally:
        damaged.unlink()
        for file, text in kept.items():
            file.write_bytes(text)


def test_the_same_again_is_the_same_and_another_seed_another_split(workspace: Path) -> None:
    flags = ("--policies", "champion,retriever", "--days", "1")
    first, again, other = run(workspace, *flags), run(workspace, *flags), run(workspace, *flags, "--seed", "1")
    assert first[1] == again[1]
    assert first[1]["looks"][0]["users"] != other[1]["looks"][0]["users"]
    assert first[1]["folder"] != other[1]["folder"]


def test_policies_see_what_the_server_would_read(workspace: Path) -> None:
    store, requests = open_store(str(workspace / "feast")), day_requests(WORLD, FIRST_DAY)
    rows_B = np.array([5, 0, 123])
    ours = OnlineFeatures(store, WORLD, FIRST_DAY)(requests, rows_B)
    for at, row in enumerate(rows_B):
        users = online_rows(store, "user_id", [int(requests.user_R[row]) + FIRST_USER_ID])
        items = online_rows(store, "item_id", (requests.item_RN[row] + FIRST_ITEM_ID).tolist())
        one = batch_from_rows(users, items, [0], [list(range(WORLD.candidates))], [requests.score_RN[row].tolist()])
        assert torch.equal(ours.user_dense_BF[at], one.user_dense_BF[0])
        assert torch.equal(ours.item_dense_BNF[at], one.item_dense_BNF[0])
        assert torch.equal(ours.item_id_BN[at], one.item_id_BN[0])
        torch.testing.assert_close(ours.score_BN[at], one.score_BN[0])
    assert ours.user_dense_BF.abs().sum() > 0


def test_what_users_did_before_is_read_from_the_logs(tmp_path: Path) -> None:
    """Against the world itself, for the lists whose request and impressions all arrived on their own day."""
    logs = tmp_path / "logs"
    write_days(WORLD, 0, 3, str(logs))
    users, found = before(logs, "2026-01-03")
    on_time = {}
    for day in range(3):
        requests = day_requests(WORLD, day)
        on_time |= {
            (int(user) + FIRST_USER_ID, round(float(reward), 3)): None
            for user, reward in zip(requests.user_R, requests.feedback.reward(), strict=True)
        }
    agree = [(user, round(reward, 3)) in on_time for user, reward in zip(users.tolist(), found["reward"], strict=True)]
    assert len(users) == pytest.approx(3 * WORLD.requests_per_day, rel=0.02)
    assert np.mean(agree) > 0.98  # late tails and rounded seconds
    assert all(len(values) == len(users) and np.isfinite(values).all() for values in found.values())
    only_last, _ = before(logs, "2026-01-02")
    assert len(only_last) < len(users)
    assert len(before(tmp_path / "nowhere", "2026-01-02")[0]) == 0


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--policies", "champion"), 2, "expected two or more"),
        (("--policies", "champion,champion"), 2, "each named once"),
        (("--policies", "champion,oracle"), 2, "policy 'oracle' found, expected one of champion, challenger, previous"),
        (("--policies", "champion,version:x"), 2, "policy 'version:x' found"),
        (("--policies", "champion,retriever", "--control", "random"), 2, "--control 'random' found"),
        (("--policies", "champion,challenger"), 4, "no version of goalrank-ranker has the alias challenger"),
        (("--policies", "champion,version:9"), 4, "no version 9"),
        (("--policies", "champion,mg-e-100"), 2, "no night of this workspace has a training set"),
        (("--policies", "Champion,MG-E-100", "--control", "MG-E-100"), 2, "has a training set"),
    ],
)
def test_what_cannot_be_tested_is_refused(workspace: Path, flags: tuple[str, ...], code: int, said: str) -> None:
    found, document, _ = run(workspace, *flags)
    assert (found, document["exit_code"]) == (code, code)
    assert said in document["reason"]


def test_policies_are_named_as_the_papers_write_them() -> None:
    expected = ["champion", "pier", "mg-e-100", "nar4rec+r", "version:3"]
    assert parse("champion, PIER,MG-E-100,NAR4Rec+r,Version:3", NAMES) == expected
    assert all(name == name.lower() for name in NAMES)
    with pytest.raises(UsageError, match="each named once"):
        parse("PIER,pier", NAMES)


def test_a_workspace_of_real_logs_is_refused(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "w")
    place.folder.mkdir()
    place.record_logs(tmp_path / "logs")
    code, document, _ = run(place.folder, "--policies", "champion,retriever")
    assert code == 2
    assert "which no simulated world wrote" in document["reason"]


def test_before_the_first_night_there_is_nothing_to_test(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "w")
    place.folder.mkdir()
    place.simulated_logs.mkdir()
    (place.simulated_logs / "world.json").write_text(WORLD.to_json())
    code, document, _ = run(place.folder, "--policies", "champion,retriever")
    assert code == 2
    assert "goalrank nightly" in document["reason"]
