"""The report of nights that the real steps told: what it shows, that nothing keeps it from being published, MLflow."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from components import registry
from components.evaluate_ranker.outputs import EXAMPLES
from components.publish_report import tracking, versions
from components.publish_report.document import METRIC_DIFFERENCE, collect, main_figures
from components.publish_report.main import run as publish
from components.publish_report.main import write
from components.publish_report.page import signed
from components.publish_report.report import CARD, DATA, PAGE
from components.publish_report.sections import SECTIONS
from components.publish_report.sections.gates import gates
from components.publish_report.sections.training import training
from components.register_model.main import DEFAULT_OBJECTIVE
from console.report import comparison
from tests.components.reported_nights import HOSTILE, ReportedNights, in_parts, shared_nights

LARGEST = 3_000_000
"""Bytes of a report, as issue and README promise."""

SEEDS = 24


@pytest.fixture(scope="module")
def nights() -> ReportedNights:
    return shared_nights()


def read(folder: Path) -> tuple[str, dict[str, Any]]:
    """The page and the data of a night."""
    return (folder / PAGE).read_text(encoding="utf-8"), json.loads((folder / DATA).read_text(encoding="utf-8"))


def copied(source: Path, tmp_path: Path) -> Path:
    """A night's folder of its own, to be written to."""
    target = tmp_path / source.parent.name / source.name
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("artifacts", "docs", "checkpoints"))
    return target


@pytest.mark.parametrize("verdict", ["promoted", "kept", "refused", "failed"])
def test_verdict_and_reason_come_first(nights: ReportedNights, verdict: str) -> None:
    page, document = read(getattr(nights, verdict))
    assert document["verdict"] == verdict
    assert re.search(rf'class="word">{verdict.capitalize()}\.</span>', page)
    assert page.index('class="reason"') < page.index("<section")
    assert "Exit code" in page if document["exit_code"] else "Exit code" not in page


def test_sections_stand_in_their_order_and_what_is_missing_says_why(nights: ReportedNights) -> None:
    page, document = read(nights.promoted)
    places = [page.index(f'<section id="{section.key}"') for section in SECTIONS if section.key != "experiment"]
    assert places == sorted(places)
    assert 'id="absent"' not in page
    page, document = read(nights.refused)
    assert "Slices, worst first: evaluate_ranker did not run, or did not end." in page
    assert 'id="gates"' in page and document["outcomes"]["check_features"]["figures"]["refused"][0][:40] in page


def test_what_stands_in_the_way_is_named_at_the_top(nights: ReportedNights) -> None:
    page, document = read(nights.kept)
    blocked = [name for name, status in document["checks"].items() if status in ("failed", "inconclusive")]
    head = page[: page.index("<section")]
    assert blocked
    assert all(f"{name.replace('_', ' ')} {document['checks'][name]}" in head for name in blocked)


def test_intervals_and_thresholds_of_the_comparison(nights: ReportedNights) -> None:
    _, document = read(nights.promoted)
    found = document["outcomes"]["evaluate_ranker"]["figures"]
    assert found["metric_differences"].keys() == {
        name for name in found["metrics"]["challenger"] if name not in ("judged_reward", "true_reward")
    }
    for difference in found["metric_differences"].values():
        assert difference["low"] <= difference["mean"] <= difference["high"]
    assert document["difference"]["mean"] == found["difference"]["mean"]


def test_what_the_model_is_worth_over_the_retriever_stands_beside_it_with_intervals(nights: ReportedNights) -> None:
    page, document = read(nights.promoted)
    card = (nights.promoted / CARD).read_text(encoding="utf-8")
    found = document["outcomes"]["evaluate_ranker"]["figures"]["retriever_differences"]
    assert found.keys() == document["retriever_differences"].keys() == found.keys() | {"judged_reward", "ndcg_at_6"}
    table = page[page.index("<h3>Challenger against the retriever") :].partition("</table>")[0]
    for metric, difference in document["retriever_differences"].items():
        assert difference == {key: found[metric][key] for key in METRIC_DIFFERENCE}
        interval = f"{signed(difference['low'])} to {signed(difference['high'])}"
        assert f">{metric.replace('_', ' ')}</th>" in table and interval in table
        assert f"| {metric.replace('_', ' ')} | {signed(difference['mean'])} | {interval} |" in card


def test_a_first_night_says_the_retrievers_difference_once(nights: ReportedNights, tmp_path: Path) -> None:
    folder = copied(nights.promoted, tmp_path)
    file = folder / "outcomes" / "evaluate_ranker.json"
    outcome = json.loads(file.read_text())
    outcome["figures"]["difference"]["against"] = "retriever"
    file.write_text(json.dumps(outcome))
    write(folder, collect(folder, nights.date, "SUCCEEDED"))
    page, _ = read(folder)
    assert "<h3>Challenger against the retriever" not in page and "challenger minus retriever" in page


def test_twenty_examples_with_titles_and_topics(nights: ReportedNights) -> None:
    page, document = read(nights.promoted)
    examples = document["outcomes"]["evaluate_ranker"]["figures"]["examples"]
    assert len(examples) == EXAMPLES == 20
    assert page.count("<details") >= EXAMPLES
    assert [example["places"] for example in examples] == sorted((e["places"] for e in examples), reverse=True)
    item = examples[0]["challenger"][0]
    assert item["title"] == HOSTILE[item["item_id"] % len(HOSTILE)]
    topics = ", ".join(map(str, item["topics"]))
    assert f"topic{'s' if len(item['topics']) > 1 else ''} {topics} · item {item['item_id']}" in page


def test_hostile_titles_are_text(nights: ReportedNights) -> None:
    page, _ = read(nights.promoted)
    for title in HOSTILE:
        if "<" in title:
            assert title not in page
    assert "&lt;script&gt;" in page and "{{ 7 * 7 }}" in page and HOSTILE[5] in page
    assert not re.search(r"<script|\son\w+=|javascript:", page.replace("onerror=&#34;", "").replace("onload=", ""))


def test_a_report_is_one_small_file_that_asks_for_nothing(nights: ReportedNights, tmp_path: Path) -> None:
    folder = copied(nights.promoted, tmp_path)
    document = collect(folder, nights.date, "SUCCEEDED")
    found = document["outcomes"]["evaluate_ranker"]["figures"]
    for example in found["examples"]:
        for item in (*example["challenger"], *example["other"]):
            item["title"] = "<" * 200
    found["slices"] *= 10
    gate = document["outcomes"]["check_features"]["figures"]
    gate["warnings"] = ["w" * 5000] * 200
    gate["drift_columns"] *= 20
    document["outcomes"]["train_ranker"]["figures"]["curves"]["loss"] = [[step, step % 7] for step in range(100_000)]
    document["versions"] = versions.beside(nights.promoted, document) * 15
    write(folder, document)
    page, _ = read(folder)
    assert len(page.encode()) < LARGEST
    assert "default-src 'none'" in page
    loaded = re.findall(r"""(?:src|srcset|href|action|poster|data)=["']([^"'#]*)""", page)
    assert {CARD, DATA} <= set(loaded)
    assert not [link for link in loaded if ":" in link or link.startswith("/")], "all lead to files beside it"
    assert not re.findall(r"url\((?!#)|@import", page)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_odd_figures_never_keep_a_report_from_being_written(nights: ReportedNights, tmp_path: Path, seed: int) -> None:
    """Leaves and branches of what the steps said are taken away or replaced; the page and its verdict stay."""
    source = nights.promoted if seed % 2 else nights.kept
    folder = copied(source, tmp_path)
    chance = random.Random(seed)
    for file in sorted((folder / "outcomes").glob("*.json")):
        outcome = json.loads(file.read_text())
        for _ in range(chance.choice((1, 3, 12))):
            spoil(outcome["figures"] if seed % 3 else outcome, chance)
        file.write_text(json.dumps(outcome))
    if seed % 4 == 0:
        chance.choice(sorted((folder / "outcomes").glob("*.json"))).write_text("{")
    document = collect(folder, nights.date, "SUCCEEDED")
    document["versions"] = versions.beside(folder, document)
    write(folder, document)
    page, written = read(folder)
    assert f'class="verdict"><p><span class="word">{written["verdict"].capitalize()}.' in page
    assert page.rstrip().endswith("</html>")
    assert (folder / CARD).read_text().startswith("# Model card")


ODD = (None, "", "<b>", [], {}, 0, -1.5, 1e300, float("nan"), float("inf"), True, [None], [[1]], {"mean": "x"})


def spoil(value: Any, chance: random.Random) -> None:
    """Take away or replace one leaf or branch somewhere below."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        deeper = isinstance(value[key], (dict, list)) and value[key]
        if deeper and chance.random() < 0.7:
            value = value[key]
        elif chance.random() < 0.3:
            del value[key]
            return
        else:
            value[key] = copy.deepcopy(chance.choice(ODD))
            return


def test_groups_made_in_parts_have_their_gate_and_figures(nights: ReportedNights, tmp_path: Path) -> None:
    folders = [copied(nights.promoted, tmp_path / name) for name in ("whole", "parted")]
    in_parts(folders[1])
    whole, parted = (collect(folder, nights.date, "SUCCEEDED") for folder in folders)
    ours, theirs = (training(document) or {} for document in (whole, parted))
    assert theirs["groups"] == ours["groups"] != []
    assert len(theirs["helpers"]) == len(ours["helpers"]) == 1
    ours, theirs = ({row["name"]: row for row in (gates(document) or {})["rows"]} for document in (whole, parted))
    assert theirs["join_groups"]["checks"] == ours["generate_groups"]["checks"] > 0
    assert "generate_groups" not in theirs
    for table in (comparison.gates, comparison.training):
        rows = [row for row in (table(whole, parted) or {})["rows"] if row["name"].startswith("generate_groups")]
        assert rows and all(row["change"] == 0 for row in rows), "the same groups, compared with each other"


def test_a_damaged_outcome_costs_what_it_said(nights: ReportedNights, tmp_path: Path) -> None:
    folder = copied(nights.promoted, tmp_path)
    (folder / "outcomes" / "train_reward.json").write_text('{"step": "train_')
    publish(str(folder), nights.date, "SUCCEEDED")
    page, document = read(folder)
    assert (document["verdict"], document["exit_code"]) == ("failed", 1)
    assert "cannot be read" in page
    assert 'id="slices"' in page and "train_reward" not in document["outcomes"]


# -------------------------------------------------------------------------------------------------------------- MLflow


def test_the_main_figures_are_tags_under_the_keys_of_report_json(nights: ReportedNights) -> None:
    _, document = read(nights.promoted)
    tags = registry.connect(nights.tracking_uri).get_run(document["mlflow_run_id"]).data.tags
    figures = main_figures(document)
    assert {"verdict", "exit_code", "metrics.challenger.judged_reward", "difference.low"} <= figures.keys()
    assert {"metric_differences.hit_at_6.low", "retriever_differences.ndcg_at_6.high"} <= figures.keys()
    for path, text in figures.items():
        found: Any = document
        for key in path.split("."):
            found = found[key]
        assert tags[path] == text[: tracking.LONGEST_TAG]
        assert (float(text) == found) if isinstance(found, float) else (text == str(found))


def test_the_last_versions_are_those_of_the_registry(nights: ReportedNights) -> None:
    client = registry.connect(nights.tracking_uri)
    rows = tracking.last_versions(client, nights.date)
    assert {row["version"]: row["verdict"] for row in rows} == {
        read(folder)[1]["model_version"]: folder_verdict
        for folder, folder_verdict in ((nights.promoted, "promoted"), (nights.kept, "kept"))
    }
    assert versions.beside(nights.failed, read(nights.failed)[1]) == rows
    assert tracking.last_versions(client, "2000-01-01") == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "sqlite:////proc/no/mlflow.db", "ftp://odd"])
def test_a_store_that_is_away_costs_the_tags_and_nothing_else(
    nights: ReportedNights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    folder = copied(nights.kept, tmp_path)
    (folder / PAGE).unlink()
    publish(str(folder), nights.date, "SUCCEEDED", address)
    outcome = json.loads((folder / "outcomes" / "publish_report.json").read_text())
    assert outcome["kind"] == "done"
    assert outcome["figures"]["tags"].startswith(("not set: ", "there is no MLflow yet"))
    assert read(folder)[1]["verdict"] == "kept"


# ---------------------------------------------------------------------------------------------------------- model card


def test_the_model_card_says_what_it_is_and_how_it_was_judged(nights: ReportedNights) -> None:
    _, document = read(nights.promoted)
    card = (nights.promoted / CARD).read_text(encoding="utf-8")
    registered = document["outcomes"]["register_model"]["figures"]
    assert f"version {document['model_version']}" in card.splitlines()[0]
    for value in (registered["ranker_sha256"], registered["lineage"]["commit"], registered["lineage"]["data_window"]):
        assert value in card
    assert "| superiority | passed |" in card and f"| objective | `{DEFAULT_OBJECTIVE}` |" in card
    assert "It was not judged" in (nights.refused / CARD).read_text(encoding="utf-8")
