"""2. A failing suite must stop the run; nothing downstream starts, and what serves stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from console.workspace import day_after
from goalrank.errors import EXIT_DATA_REFUSED, EXIT_DONE, EXIT_USAGE
from tests.faults import registry_on_disk
from tests.faults.conftest import Seen
from tests.faults.nights import Nights, answer, goalrank, run_night

FARTHER = 1_000_000


def rewrite(folder: Path, change: Any) -> None:
    (file,) = folder.glob("*.parquet")
    table = pq.read_table(file, partitioning=None)
    pq.write_table(change(table).cast(table.schema), file)


def renumber_next_day(nights: Nights) -> None:
    """The next day arrives with item ids of another system: sound by itself, foreign to all that is known."""
    from goalrank import simulator

    logs = nights.workspace / "logs"
    config = simulator.load_world(str(logs))
    assert config is not None
    simulator.write_days(config, simulator.day_number(config, nights.next_date), 1, str(logs))
    (file,) = (logs / "requests" / f"dt={nights.next_date}").glob("*.parquet")
    asked = pq.read_table(file, columns=["request_id"], partitioning=None)["request_id"]

    def requests(table: pa.Table) -> pa.Table:
        lists = table["candidates"].combine_chunks()
        moved = pa.ListArray.from_arrays(lists.offsets, pc.add(lists.values, FARTHER))
        return table.set_column(table.column_names.index("candidates"), "candidates", moved)

    def impressions(table: pa.Table) -> pa.Table:
        today = pc.is_in(table["request_id"], value_set=asked.combine_chunks())
        moved = pc.if_else(today, pc.add(table["item_id"], FARTHER), table["item_id"])
        return table.set_column(table.column_names.index("item_id"), "item_id", moved)

    rewrite(logs / "requests" / f"dt={nights.next_date}", requests)
    rewrite(logs / "impressions" / f"dt={nights.next_date}", impressions)


def kept(nights: Nights) -> dict[str, str]:
    """What must not change: the online store's record, the journal of promotions, the registry."""
    names = ("goalrank-ranker", "goalrank-reward")
    versions = {name: registry_on_disk.versions(nights.database, name) for name in names}
    return {
        "online": (nights.workspace / "feast/online.json").read_text(),
        "journal": json.dumps(nights.journal()),
        "champion": str(nights.champion()),
        "versions": json.dumps(versions),
    }


def stops_at(nights: Nights, step: str, began: list[str]) -> str:
    before = kept(nights)
    refused = run_night(nights.workspace)
    assert (refused["verdict"], refused["exit_code"]) == ("refused", EXIT_DATA_REFUSED), refused["reason"]
    assert refused["reason"].startswith(f"{step}: ")
    assert [stage["name"] for stage in refused["stages"]] == [*began, "publish_report"]
    lines = (Path(refused["report"]).parent / "progress.jsonl").read_text().splitlines()
    started = {event["step"] for event in map(json.loads, lines) if event["event"] == "start"}
    assert started == {*began, "publish_report"}
    assert kept(nights) == before
    docs = nights.outcomes(refused)[step]["figures"]["data_docs"]
    assert f'href="{docs}"' in Path(refused["report"]).read_text()
    site = (Path(refused["report"]).parent / docs).parent
    assert not [page for page in site.rglob("*.html") if "<script" in page.read_text()]
    assert f"goalrank day skip {nights.next_date} --reason" in refused["reason"]
    return refused["reason"]


def test_the_logs_suite_stops_the_night(nights: Nights, seen: Seen) -> None:
    nights.break_next_day()
    reason = stops_at(nights, "check_logs", ["check_logs"])
    assert "column=click expected=int8 found=absent" in reason
    seen("check_logs refuses a renamed column", "exit 3, only the report follows, champion and stores untouched")


def test_the_features_suite_stops_the_night_and_the_one_after_goes_on(nights: Nights, seen: Seen) -> None:
    """The refusal names the way out; typed, it leads to a night of the next day that reads nothing of the bad one."""
    renumber_next_day(nights)
    bad = nights.next_date
    reason = stops_at(nights, "check_features", ["check_logs", "extract_features", "check_features"])
    assert "at most 50% of the items unknown" in reason and "reference=shown items" in reason
    seen("check_features refuses item ids that nobody knows", "exit 3, nothing materialised, trained or registered")

    again = run_night(nights.workspace)
    assert (again["date"], again["exit_code"]) == (bad, EXIT_DATA_REFUSED), "without a decision the date is tried again"

    place = ("--workspace", str(nights.workspace), "--json")
    skipped = goalrank("day", "skip", bad, "--reason", "ids of another system, nobody can map them", *place)
    assert skipped.returncode == EXIT_DONE, skipped.stderr
    assert answer(skipped.stdout)["skipped"] == {bad: "ids of another system, nobody can map them"}
    usage = goalrank("nightly", "--date", bad, *place)
    assert usage.returncode == EXIT_USAGE and f"{bad} is a skipped day" in usage.stderr

    night = run_night(nights.workspace)
    assert (night["date"], night["exit_code"]) == (day_after(bad), EXIT_DONE), night["reason"]
    figures = {step: outcome["figures"] for step, outcome in nights.outcomes(night).items()}
    assert figures["check_logs"]["skipped"] == [bad]
    assert figures["extract_features"]["mode"] == "incremental"
    assert {entry.rpartition("=")[2] for entry in figures["extract_features"]["read"]} == {day_after(bad)}
    manifest = json.loads((nights.workspace / "snapshots/manifests" / f"{day_after(bad)}.json").read_text())
    assert (manifest["previous"]["date"], manifest["skipped"]) == (nights.first["date"], [bad])
    seen(
        "the day skipped, as the refusal says",
        f"the next night is {night['date']}: {night['verdict']}, nothing of it read",
    )
