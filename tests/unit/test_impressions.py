"""Impressions of foreign files: columns under any name, rows in any order, errors by line, nothing half-written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from console.importing_impressions import warnings
from console.main import app
from goalrank.candidates import CANDIDATES
from goalrank.errors import DataRefused, UsageError
from goalrank.impressions import FEWEST_TO_JUDGE, MOST_TORN, import_impressions, reading, values
from goalrank.impressions.completion import PRIOR_IMPRESSIONS
from goalrank.impressions.lists import LONGEST_SECONDS, MOST_SHOWN
from goalrank.rating_files import hashed_id
from goalrank.schema import LOG_TABLES, REQUEST_ID_PATTERN
from goalrank.verdict import MINIMUM_USERS
from tests.foreign_log import HEADER, LISTS_OF, TOPICS, write_foreign_log

NEEDED = ("request_id", "user_id", "event_time", "position", "item_id", "click")
NOON = "2026-03-02 12:00:00"


def text(rows: Sequence[Sequence[object]], header: Sequence[str] = NEEDED, delimiter: str = ",") -> str:
    said = io.StringIO()
    csv.writer(said, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return said.getvalue()


def write(folder: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = NEEDED) -> str:
    (folder / "shown.csv").write_text(text(rows, header))
    return str(folder / "shown.csv")


def shown(request: str, user: str, items: Sequence[object], when: str = NOON, clicked: object = None) -> list[tuple]:
    """The rows of one list."""
    return [(request, user, when, place, item, int(item == clicked)) for place, item in enumerate(items)]


def logs_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of every table with their arrival day."""
    return {
        name: ds.dataset(folder / name, format="parquet", partitioning=ds.partitioning(flavor="hive"))
        .to_table()
        .to_pylist()
        for name in LOG_TABLES
        if (folder / name).exists()
    }


def slates(folder: Path) -> dict[str, list[int]]:
    rows = sorted(logs_of(folder)["impressions"], key=lambda row: (row["request_id"], row["position"]))
    found: dict[str, list[int]] = {}
    for row in rows:
        assert row["position"] == len(found.setdefault(row["request_id"], [])) + 1
        found[row["request_id"]].append(row["item_id"])
    return found


# ------------------------------------------------------------------------------------------------------- a whole file


@pytest.fixture(scope="module")
def newspaper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a newspaper's impressions.csv, articles.csv and the logs made of them."""
    folder = tmp_path_factory.mktemp("newspaper")
    file = write_foreign_log(folder, viewers=60, days=3)
    import_impressions(str(file), str(folder / "logs"), items=str(folder / "articles.csv"))
    return folder


def test_the_logs_say_what_the_file_says(newspaper: Path) -> None:
    logs = logs_of(newspaper / "logs")
    titles = {row["item_id"]: row["title"] for row in logs["items"]}
    users = {row["id"]: row["original"] for row in pq.read_table(newspaper / "logs" / "user_ids.parquet").to_pylist()}
    requests = {row["request_id"]: row for row in logs["requests"]}
    said = set()
    for row in logs["impressions"]:
        request = requests[row["request_id"]]
        assert str(request["dt"]) == str(row["dt"]) == request["event_time"].date().isoformat()
        seconds = "" if row["watch_seconds"] is None else f"{row['watch_seconds']:.1f}"
        said.add(
            (
                row["request_id"].partition(":")[2],
                users[request["user_id"]],
                request["event_time"].strftime("%Y-%m-%d %H:%M:%S"),
                str(row["position"] - 1),
                titles[row["item_id"]].replace("Article ", "a-"),
                "yes" if row["click"] else "no",
                seconds,
            )
        )
    with open(newspaper / "impressions.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == HEADER
    assert said == {tuple(row) for row in rows[1:]}


def test_every_column_has_the_contracts_type(newspaper: Path) -> None:
    for name, schema in LOG_TABLES.items():
        for file in (newspaper / "logs" / name).rglob("*.parquet"):
            assert pq.read_schema(file).equals(schema), file


def test_candidates_are_the_shown_and_others_with_the_click_rates_of_the_days_before(newspaper: Path) -> None:
    logs = logs_of(newspaper / "logs")
    slate_of = slates(newspaper / "logs")
    days = sorted({str(row["dt"]) for row in logs["requests"]})
    day_of = {row["request_id"]: str(row["dt"]) for row in logs["requests"]}
    last = logs["impressions"]
    for day in days:
        before = [row for row in last if day_of[row["request_id"]] < day]
        clicks = sum(row["click"] for row in before)
        overall = clicks / max(len(before), 1)
        rate = {}
        for item in {row["item_id"] for row in last}:
            of_item = [row["click"] for row in before if row["item_id"] == item]
            rate[item] = (sum(of_item) + PRIOR_IMPRESSIONS * overall) / (len(of_item) + PRIOR_IMPRESSIONS)
        for row in (row for row in logs["requests"] if str(row["dt"]) == day):
            assert len(set(row["candidates"])) == len(row["candidates"]) == CANDIDATES
            assert set(slate_of[row["request_id"]]) <= set(row["candidates"])
            assert row["candidate_scores"] == pytest.approx([rate[item] for item in row["candidates"]], abs=1e-6)
    places = [row["candidates"].index(slate_of[row["request_id"]][0]) for row in logs["requests"]]
    assert 15 < np.mean(places) < 35, "where a candidate stands must not tell whether it was shown"


def test_topics_and_attributes(newspaper: Path, tmp_path: Path) -> None:
    topics = {row["id"]: row["original"] for row in pq.read_table(newspaper / "logs" / "topic_ids.parquet").to_pylist()}
    assert set(topics.values()) == set(TOPICS)
    with open(newspaper / "articles.csv", newline="") as file:
        category = {row["headline"]: row["category"] for row in csv.DictReader(file)}
    for row in logs_of(newspaper / "logs")["items"]:
        assert [topics[topic] for topic in row["topics"]] == [category[row["title"]]]
    (tmp_path / "people.csv").write_text("viewer,city,age\nv1,Rome,30\nv2,,41\n")
    file = write(tmp_path, shown("a", "v1", [1, 2]) + shown("b", "v2", [1, 2]) + shown("c", "v3", [1, 2]))
    document = import_impressions(file, str(tmp_path / "logs"), users=str(tmp_path / "people.csv"))
    rows = {row["user_id"]: row["attributes"] for row in logs_of(tmp_path / "logs")["users"]}
    assert rows == {
        hashed_id("v1"): ["city=Rome", "age=30"],
        hashed_id("v2"): ["age=41"],
        hashed_id("v3"): [],
    }
    assert document["users_without_a_row"] == 1


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*.parquet"))
        if not file.name.endswith("_ids.parquet")
    }


@pytest.mark.parametrize("block", [1 << 12, 1 << 20])
def test_small_blocks_and_packed_files_give_the_same_logs(
    newspaper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block)
    packed = tmp_path / "impressions.csv.gz"
    packed.write_bytes(gzip.compress((newspaper / "impressions.csv").read_bytes()))
    import_impressions(str(packed), str(tmp_path / "logs"), items=str(newspaper / "articles.csv"))
    assert everything(tmp_path / "logs") == everything(newspaper / "logs")


def test_days_added_later_are_those_of_the_whole_file(newspaper: Path, tmp_path: Path) -> None:
    """Two days first, then the whole file once more: the third day is as if all had come at once."""
    given = {"items": str(newspaper / "articles.csv")}
    file, logs = str(newspaper / "impressions.csv"), tmp_path / "logs"
    import_impressions(file, str(logs), until=datetime(2026, 3, 3).date(), **given)
    before = everything(logs)
    document = import_impressions(file, str(logs), add=True, **given)
    after = everything(logs)
    assert {name: after[name] for name in before} == before
    assert after == everything(newspaper / "logs")
    assert document["days"]["count"] == 3 and len(document["added_to"]) == 1
    with pytest.raises(DataRefused, match="after 2026-03-04, the newest day that is there"):
        import_impressions(file, str(logs), add=True, **given)
    assert everything(logs) == after
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_an_addition_that_was_killed_is_made_up(
    newspaper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the new day's requests were in: no night sees that day, and typing it again makes it whole."""
    file, logs = str(newspaper / "impressions.csv"), tmp_path / "logs"
    given = {"items": str(newspaper / "articles.csv")}
    import_impressions(file, str(logs), until=datetime(2026, 3, 3).date(), **given)
    rename = os.rename

    def killed(source: Path, target: Path) -> None:
        if source.parent.name == "requests":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        import_impressions(file, str(logs), add=True, **given)
    assert (logs / "impressions" / "dt=2026-03-04").is_dir() and len(list((logs / "requests").iterdir())) == 2
    monkeypatch.setattr(os, "rename", rename)
    import_impressions(file, str(logs), add=True, **given)
    assert everything(logs) == everything(newspaper / "logs")
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_only_the_new_day_is_needed(newspaper: Path, tmp_path: Path) -> None:
    lines = (newspaper / "impressions.csv").read_text().splitlines(keepends=True)
    third = [line for line in lines if ",2026-03-04 " in line]
    (tmp_path / "first.csv").write_text("".join(line for line in lines if line not in set(third)))
    (tmp_path / "third.csv").write_text(lines[0] + "".join(third))
    given = {"items": str(newspaper / "articles.csv")}
    import_impressions(str(tmp_path / "first.csv"), str(tmp_path / "logs"), **given)
    import_impressions(str(tmp_path / "third.csv"), str(tmp_path / "logs"), add=True, **given)
    for table in ("requests", "impressions"):
        ours, whole = (
            {row["request_id"]: row for row in logs_of(folder / "logs")[table]} for folder in (tmp_path, newspaper)
        )
        assert ours.keys() == whole.keys()
    scores = [
        {
            row["request_id"]: dict(zip(row["candidates"], row["candidate_scores"], strict=True))
            for row in logs_of(folder / "logs")["requests"]
        }
        for folder in (tmp_path, newspaper)
    ]
    for request, ours in scores[0].items():
        both = ours.keys() & scores[1][request].keys()
        assert len(both) >= LISTS_OF and all(ours[item] == scores[1][request][item] for item in both)


def test_lists_that_came_too_late_for_their_day_are_counted_and_warned_of(tmp_path: Path) -> None:
    """The first import saw half a day; a list that reaches into it from the day before is not late."""
    across = [("x", "u0", "2026-03-01 23:59:50", 0, 1, 0), ("x", "u0", "2026-03-02 00:00:10", 1, 2, 0)]
    early, late = ([row for n in range(3) for row in shown(f"{name}{n}", "u1", [1, 2])] for name in "ab")
    torn = shown("t", "u1", [1, 2]) + shown("t", "u2", [1, 2])
    import_impressions(write(tmp_path, [*across, *early]), str(tmp_path / "logs"))
    after = shown("c", "u1", [1, 2], "2026-03-03 10:00:00")
    for rows, lists in (([*across, *early, *torn, *after], 0), ([*early, *late, *after], 3)):
        import_impressions(write(tmp_path, [*across, *early]), str(tmp_path / f"logs{lists}"))
        document = import_impressions(write(tmp_path, rows), str(tmp_path / f"logs{lists}"), add=True)
        of_that_day = sum(row[2].startswith("2026-03-02") for row in rows)
        assert document["dropped"]["rows of a day that is there already"] == of_that_day
        told = [warning for warning in warnings(document) if "that day is closed" in warning]
        assert len(told) == bool(lists) and all(w.startswith("3 lists of 2026-03-02 are not in the logs") for w in told)
    with pytest.raises(DataRefused, match="of that day 6 rows, but a day that is there never changes"):
        import_impressions(write(tmp_path, late), str(tmp_path / "logs"), add=True)


def test_add_wants_logs_of_ours(tmp_path: Path) -> None:
    file = write(tmp_path, shown("a", "u", [1, 2]))
    with pytest.raises(UsageError, match="holds no logs that `goalrank import csv` wrote"):
        import_impressions(file, str(tmp_path), add=True)
    import_impressions(file, str(tmp_path / "logs"))
    later = write(tmp_path, shown("b", "someone", ["x", 2], "2026-03-03 10:00:00"))
    with pytest.raises(DataRefused, match="item id 'x' found, expected whole numbers"):
        import_impressions(later, str(tmp_path / "logs"), add=True)


# ------------------------------------------------------------------------------------------------------------- lists


def test_rows_of_a_list_in_any_order_with_any_numbering(tmp_path: Path) -> None:
    rows = shown("a", "7", [5, 3, 9]) + shown("b", "8", [3, 4, 5, 6])
    rows = [(*row[:3], row[3] * 2 + 10, *row[4:]) for row in rows]
    import_impressions(write(tmp_path, rows[::-1]), str(tmp_path / "logs"))
    assert slates(tmp_path / "logs") == {"2026-03-02:a": [5, 3, 9], "2026-03-02:b": [3, 4, 5, 6]}
    assert not list((tmp_path / "logs").glob("*_ids.parquet")), "plain integers stay what they are"
    document = json.loads((tmp_path / "logs" / "import.json").read_text())
    assert document["mended"] == {"lists with gaps": 2}


def test_repeated_rows_are_one_and_keep_what_any_of_them_says(tmp_path: Path) -> None:
    header = (*NEEDED, "like", "watch_ms")
    first = [("a", 1, NOON, 1, 5, 0, "", ""), ("a", 1, NOON, 2, 6, 0, "", "")]
    again = [("a", 1, "2026-03-02 12:00:40", 1, 5, 1, "true", 1500), ("a", 1, NOON, 1, 5, 0, "", "700")]
    document = import_impressions(write(tmp_path, first + again, header), str(tmp_path / "logs"))
    assert document["dropped"] == {"repeated rows": 2}
    rows = {row["position"]: row for row in logs_of(tmp_path / "logs")["impressions"]}
    assert (rows[1]["click"], rows[1]["like"], rows[1]["watch_seconds"]) == (1, 1, 1.5)
    assert (rows[2]["click"], rows[2]["like"], rows[2]["watch_seconds"]) == (0, 0, None)
    (request,) = logs_of(tmp_path / "logs")["requests"]
    assert request["event_time"] == datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (("l0", "u1", NOON, 9, 99, 0), "several users"),
        (("l0", "u0", NOON, 1, 99, 0), "two items at one place"),
        (("l0", "u0", NOON, 9, 11, 0), "one item at two places"),
    ],
)
def test_a_list_that_contradicts_itself_is_left_out(tmp_path: Path, extra: tuple, reason: str) -> None:
    rows = [row for n in range(FEWEST_TO_JUDGE + 1) for row in shown(f"l{n}", f"u{n}", [10, 11, 12])]
    document = import_impressions(write(tmp_path, [*rows, extra]), str(tmp_path / "logs"))
    assert document["dropped"] == {f"lists: {reason}": 1}
    assert len(slates(tmp_path / "logs")) == FEWEST_TO_JUDGE


def test_a_list_nobody_can_have_seen_is_left_out(tmp_path: Path) -> None:
    rows = shown("long", "u", range(MOST_SHOWN + 1)) + shown("most", "u", range(MOST_SHOWN))
    document = import_impressions(write(tmp_path, rows), str(tmp_path / "logs"))
    assert document["dropped"] == {f"lists: more than {MOST_SHOWN} items": 1}
    assert set(slates(tmp_path / "logs")) == {"2026-03-02:most"}
    page = Path(__file__).parents[2] / "docs" / "bring-your-own-logs.md"
    assert f"lists of more than {MOST_SHOWN} items" in page.read_text()


def test_lists_that_share_an_id_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """Every session has two lists: the id does not tell them apart, the time does."""
    rows = []
    for n in range(FEWEST_TO_JUDGE):
        rows += shown(f"s{n}", f"u{n}", [1, 2, 3]) + shown(f"s{n}", f"u{n}", [4, 5, 6], "2026-03-02 12:20:00")
    file = write(tmp_path, rows)
    with pytest.raises(DataRefused) as refused:
        import_impressions(file, str(tmp_path / "logs"))
    said = str(refused.value)
    assert f"20 of 20 lists contradict themselves, expected at most {MOST_TORN:.0%}" in said
    assert "list 's0' (column request_id) has two items at one place" in said
    assert "--map request=request_id+event_time" in said
    assert not (tmp_path / "logs").exists()
    import_impressions(file, str(tmp_path / "logs"), mapping=["request=request_id+event_time"])
    assert len(slates(tmp_path / "logs")) == 2 * FEWEST_TO_JUDGE


def test_ids_are_those_the_service_takes(tmp_path: Path) -> None:
    """smoke_serve asks it logged requests: another id would be refused there, after an hour of training."""
    long = "x" * 60
    file = write(tmp_path, shown("a b", "1", [1, 2]) + shown("a/b", "1", [1, 2]) + shown(long, "1", [1, 2]))
    import_impressions(file, str(tmp_path / "logs"))
    ids = [row["request_id"] for row in logs_of(tmp_path / "logs")["requests"]]
    assert len(set(ids)) == 3 and all(re.fullmatch(REQUEST_ID_PATTERN, name) for name in ids), ids


def test_a_list_across_midnight_stays_whole_and_an_id_used_again_is_another(tmp_path: Path) -> None:
    late = [("a", 1, "2026-03-02 23:59:50", 0, 5, 0), ("a", 1, "2026-03-03 00:00:10", 1, 6, 1)]
    again = shown("a", "1", [7, 8], "2026-03-03 12:00:00")
    assert (datetime(2026, 3, 3, 12) - datetime(2026, 3, 2, 23, 59, 50)).seconds > LONGEST_SECONDS
    import_impressions(write(tmp_path, again + late), str(tmp_path / "logs"))
    assert slates(tmp_path / "logs") == {"2026-03-02:a": [5, 6], "2026-03-03:a": [7, 8]}


def test_logged_candidates_and_scores(tmp_path: Path) -> None:
    header = (*NEEDED, "candidates", "candidate_scores")
    rows = [
        (*row, candidates, scores)
        for items, candidates, scores in (
            ([3, 5], "[5, 3, 8, 9]", "[0.5, 0.25, 2, -1]"),
            ([3, 5], "8|3|8", "1|2|1"),
            ([3, 5], "8|3|5", "1;2"),
        )
        for row in shown(str(len(scores)), "1", items)
    ]
    document = import_impressions(write(tmp_path, rows, header), str(tmp_path / "logs"))
    found = {row["request_id"].partition(":")[2]: row for row in logs_of(tmp_path / "logs")["requests"]}
    assert found["18"]["candidates"] == [5, 3, 8, 9]
    assert found["18"]["candidate_scores"] == [0.5, 0.25, 2, -1]
    assert found["5"]["candidates"] == [8, 3, 5]
    assert found["5"]["candidate_scores"] == [1, 2, 1]
    assert found["3"]["candidate_scores"] == [0, 0, 0], "no click before: every rate is 0"
    assert document["mended"] == {
        "shown items added to the candidates": 1,
        "lists with other scores than candidates": 1,
    }
    assert {row["item_id"] for row in logs_of(tmp_path / "logs")["items"]} == {3, 5, 8, 9}


@pytest.mark.parametrize(
    ("candidates", "ids"),
    [
        ("red shoe|blue (new) hat, large", ["red shoe", "blue (new) hat, large"]),
        ("red shoe; blue, old", ["red shoe", "blue, old"]),
        ("red shoe, [blue]", ["red shoe", "[blue]"]),
        ("red blue", ["red", "blue"]),
        ('["red shoe", "a, b", 3, null]', ["red shoe", "a, b", "3"]),
        ("['red shoe', \"it's\"]", ["red shoe", "it's"]),
        ("[red shoe, blue]", ["red shoe", "blue"]),
        ("[a3 9 12]", ["a3", "9", "12"]),
        ("[3, 9.0, 1e2]", ["3", "9.0", "1e2"]),
    ],
)
def test_ids_of_candidates_stay_whole(tmp_path: Path, candidates: str, ids: list[str]) -> None:
    rows = [(*row, text) for text in (candidates, ids[0]) for row in shown(text, "u", [ids[0]])]
    import_impressions(write(tmp_path, rows, (*NEEDED, "candidates")), str(tmp_path / "logs"))
    found = [row["candidates"] for row in logs_of(tmp_path / "logs")["requests"]]
    assert sorted(found, key=len) == [[hashed_id(ids[0])], [hashed_id(name) for name in ids]]


def test_a_columns_mark_holds_in_every_row_and_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 4096)
    rows = [(*row, "a|b" if n < 500 else "a, b") for n in range(1000) for row in shown(f"l{n}", "u", ["a"])]
    import_impressions(write(tmp_path, rows, (*NEEDED, "candidates")), str(tmp_path / "logs"))
    assert {row["title"] for row in logs_of(tmp_path / "logs")["items"]} == {"a", "b", "a, b"}


def test_candidates_that_are_other_ids_are_refused(tmp_path: Path) -> None:
    header = (*NEEDED, "candidates")
    rows = [(*row, "x1|x2|a") for row in shown("l", "u", ["a", "b", "c"])]
    with pytest.raises(DataRefused, match="2 of 3 shown items are not among the candidates in column candidates") as no:
        import_impressions(write(tmp_path, rows, header), str(tmp_path / "logs"))
    assert str(no.value).endswith("--map candidates=") and not (tmp_path / "logs").exists()
    assert import_impressions(write(tmp_path, rows[:2], header), None)["candidates"] == "logged"
    assert import_impressions(write(tmp_path, rows, header), None, mapping=["candidates="])["candidates"] == "drawn"
    empty = [(*row[:6], "") for row in rows]
    assert import_impressions(write(tmp_path, empty, header), None)["candidates"] == "drawn"


def test_few_items_make_few_candidates_and_long_lists_more(tmp_path: Path) -> None:
    long = list(range(1, 41))
    rows = shown("long", "1", long) + shown("short", "1", [1, 2]) + shown("other", "2", range(41, 121))
    import_impressions(write(tmp_path, rows), str(tmp_path / "logs"))
    found = {row["request_id"].partition(":")[2]: row["candidates"] for row in logs_of(tmp_path / "logs")["requests"]}
    assert {name: len(set(items)) for name, items in found.items()} == {"long": 80, "short": CANDIDATES, "other": 120}
    import_impressions(write(tmp_path, shown("a", "1", [1, 2]) + shown("b", "1", [3, 4])), str(tmp_path / "few"))
    assert [sorted(row["candidates"]) for row in logs_of(tmp_path / "few")["requests"]] == [[1, 2, 3, 4]] * 2


# ------------------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("said", "zone", "meant"),
    [
        ("2026-03-02T12:00:00Z", "UTC", "2026-03-02T12:00:00"),
        ("2026-03-02T12:00:00+02:00", "UTC", "2026-03-02T10:00:00"),
        ("2026-03-02 12:00:00.123456789+0200", "UTC", "2026-03-02T10:00:00.123456"),
        ("2026-03-02 12:00:00", "Europe/Paris", "2026-03-02T11:00:00"),
        ("2026-03-02", "UTC", "2026-03-02T00:00:00"),
        ("1772452800", "UTC", "2026-03-02T12:00:00"),
        ("1772452800.5", "UTC", "2026-03-02T12:00:00.500000"),
        ("1772452800123", "UTC", "2026-03-02T12:00:00.123000"),
        ("1772452800123456", "UTC", "2026-03-02T12:00:00.123456"),
    ],
)
def test_times(said: str, zone: str, meant: str) -> None:
    (micro,), (bad,) = values.times(pa.array([said]), zone)
    assert not bad
    assert np.datetime64(int(micro), "us") == np.datetime64(meant, "us")
    others = ["2026-03-02 12:00:00", "2026-03-02T12:00:00Z", "noon", "1772452800", said]
    micro_R, bad_R = values.times(pa.array(others), zone)
    assert micro_R[-1] == micro and bad_R.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    "said", ["", "noon", "2026-13-01", "12:00", "-5", "0", "1e40", "2200-01-01", "1900-01-01T00:00:00Z"]
)
def test_times_that_are_none(said: str) -> None:
    assert values.times(pa.array([said]), "UTC")[1].tolist() == [True]


def test_flags_and_amounts() -> None:
    flag_R, bad_R = values.flags(pa.array(["1", "0", "TRUE", "no", "", "3", "0.0", "1.0", "maybe", "-1", "0.5"]))
    assert flag_R[:8].tolist() == [1, 0, 1, 0, 0, 1, 0, 1] and bad_R.tolist() == [False] * 8 + [True] * 3
    amount_R, bad_R = values.amounts(pa.array(["1.5", "", "0", "-1", "nan", "inf", "much", "1_0"]))
    assert amount_R[[0, 2]].tolist() == [1.5, 0] and np.isnan(amount_R[1])
    assert bad_R.tolist() == [False] * 3 + [True] * 5
    _, bad_R = values.amounts(pa.array(["0", "1", "1.01", "0.3"]), 1.0, above_zero=True)
    assert bad_R.tolist() == [True, False, True, False]


# --------------------------------------------------------------------------------------------------------- bad input

ROW = ("a", "u", NOON, "1", "i", "0", "0.5", "0.5")
WIDE = (*NEEDED, "watch_seconds", "propensity")
BAD_ROWS = [
    (ROW[:7], "found 7 fields, expected 8, as in the header"),
    (("", *ROW[1:]), "found request '', expected an id"),
    (("a", " ", *ROW[2:]), "found user '', expected an id"),
    (("a", "u", "noon", *ROW[3:]), f"found time 'noon', expected {values.TIME}"),
    (("a", "u", NOON, "-1", *ROW[4:]), f"found position '-1', expected {values.WHOLE}"),
    (("a", "u", NOON, "first", *ROW[4:]), f"found position 'first', expected {values.WHOLE}"),
    ((*ROW[:5], "maybe", "", ""), f"found click 'maybe', expected {values.FLAG}"),
    ((*ROW[:6], "-3", ""), f"found watch '-3', expected {values.SECONDS}"),
    ((*ROW[:7], "0"), f"found propensity '0', expected {values.PROBABILITY}"),
]


@pytest.mark.parametrize(("row", "said"), BAD_ROWS)
def test_a_bad_row_is_refused_by_line_or_left_out_on_demand(tmp_path: Path, row: tuple, said: str) -> None:
    good = [("g", f"u{n}", NOON, n, f"i{n}", 0, "", "") for n in range(3)]
    good = [("g", "u0", *r[2:]) for r in good]
    file = write(tmp_path, [*good, row[:3], row, *good[:1]], WIDE)
    with pytest.raises(DataRefused) as refused:
        import_impressions(file, str(tmp_path / "logs"))
    assert str(refused.value).startswith(f"{file}: 2 unreadable rows found, expected none. line 5: found 3 fields")
    assert f"line 6: {said}" in str(refused.value)
    assert str(refused.value).endswith("or leave them and their lists out with --max-bad-rows 2")
    with pytest.raises(DataRefused, match="2 unreadable rows found, expected 1"):
        import_impressions(file, str(tmp_path / "logs"), max_bad_rows=1)
    assert [path.name for path in tmp_path.iterdir()] == ["shown.csv"]
    document = import_impressions(file, str(tmp_path / "logs"), max_bad_rows=2)
    dropped = {what: count for what, count in document["dropped"].items() if what.startswith("unreadable")}
    assert sum(dropped.values()) == 2 and document["dropped"]["repeated rows"] == 1
    assert slates(tmp_path / "logs") == {"2026-03-02:g": [hashed_id(f"i{n}") for n in range(3)]}


SHORT = ("l0", "u0", NOON, 3, 13)
LONG = ("l0", "u0", NOON, 3, 13, 0, "", "", "")


@pytest.mark.parametrize("row", [SHORT, LONG, ("a", *LONG[:8]), ("l0", "u0", NOON, 3, 13, 0, "-1", "")])
def test_a_list_that_lost_a_row_goes_whole(tmp_path: Path, row: tuple) -> None:
    """Else a list would be left with only its clicked rows."""
    rows = [(*each, "", "") for n in range(3) for each in shown(f"l{n}", f"u{n}", [10, 11, 12], clicked=10)]
    file = write(tmp_path, [*rows, row], WIDE)
    document = import_impressions(file, str(tmp_path / "logs"), max_bad_rows=1)
    assert set(slates(tmp_path / "logs")) == {"2026-03-02:l1", "2026-03-02:l2"}
    assert document["dropped"]["lists with an unreadable row"] == 1


def test_leaving_out_is_advised_only_where_it_leaves_most(tmp_path: Path) -> None:
    """One bad row in each of many lists: without them no list would be left."""
    rows = [(*row, "-1" if row[3] else "", "") for n in range(3) for row in shown(f"l{n}", f"u{n}", [1, 2])]
    with pytest.raises(DataRefused, match="Correct them or name another column with --map$"):
        import_impressions(write(tmp_path, rows, WIDE), None)


@pytest.mark.parametrize("said", ["NaN", "null", "None", r"\N", "NA"])
def test_words_for_nothing_in_optional_columns(tmp_path: Path, said: str) -> None:
    header = (*WIDE, "like", "candidates", "candidate_scores")
    rows = [(*row, *[said] * 5) for row in shown("a", "1", [1, 2])]
    (tmp_path / "items.csv").write_text(f"id,duration,created\n1,{said},{said}\n")
    file = write(tmp_path, rows, header)
    document = import_impressions(file, str(tmp_path / "logs"), items=str(tmp_path / "items.csv"))
    assert document["dropped"] == {} and document["counts"]["items"] == 2
    for row in logs_of(tmp_path / "logs")["impressions"]:
        assert (row["like"], row["watch_seconds"], row["propensity"]) == (0, None, None)
    with pytest.raises(DataRefused, match="found click"):
        import_impressions(write(tmp_path, [(*row[:5], said) for row in shown("a", "1", [1, 2])]), None)


def test_the_line_is_right_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 4096)
    rows: list[tuple] = [row for n in range(600) for row in shown(f"l{n}", f"u{n}", [1, 2, 3])]
    rows[100], rows[900], rows[1500] = ("short",), ("x", "u", "noon", 1, 1, 1), ("x", "u", NOON, "p", 1, 1)
    with pytest.raises(DataRefused) as refused:
        import_impressions(write(tmp_path, rows), None)
    assert all(f"line {number + 2}: found" in str(refused.value) for number in (100, 900, 1500)), refused.value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found an empty file"),
        (b"request_id,user_id,user_id\n", "found column 'user_id' twice"),
        (b"1,2,3,4,5,6\n", "found no names of columns, expected a header"),
        (text([]).encode(), "a header and no row found"),
        (b"sep=;\n" + text([], delimiter=";").encode(), "line 1: found 'sep=;', which is for a spreadsheet"),
        # Without a time in it: a test is told by its bytes, and all processes of a run must tell the same tests.
        (gzip.compress(text([]).encode(), mtime=0), "expected a name that ends in .gz; rename it to shown.csv.gz"),
        (b"PAR1\x15\x04", "found a Parquet file, expected CSV text"),
        (b"PK\x03\x04\x14\0", "found a zip archive or a spreadsheet, expected CSV text"),
        (
            text(shown("a", "u", [1])).encode() + b"b,J\xfcrgen,2026-03-02,1,1,1\n",
            "line 3: found byte 0xfc at column 4",
        ),
        (text(shown("a", "u", [1])).replace("\n", "\r").encode(), "line 1: found line ends of an old Mac (CR)"),
        (text(shown("a", "u", [1])).encode("utf-16"), "found UTF-16 or binary data"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "shown.csv").write_bytes(content)
    with pytest.raises(DataRefused) as refused:
        import_impressions(str(tmp_path / "shown.csv"), str(tmp_path / "logs"))
    assert said in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["shown.csv"]


def test_a_packed_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    rows = [row for n in range(5000) for row in shown(f"l{n}", f"u{n * n}", [1, 2, 3])]
    file = write(tmp_path, rows)
    for name in ("shown.csv.gz", "items.csv.gz"):
        (tmp_path / name).write_bytes(gzip.compress(Path(file).read_bytes())[:-40])
    with pytest.raises(DataRefused, match=r"shown.csv.gz: found what cannot be unpacked"):
        import_impressions(str(tmp_path / "shown.csv.gz"), None)
    with pytest.raises(DataRefused, match=r"items.csv.gz: found what cannot be unpacked"):
        import_impressions(file, None, items=str(tmp_path / "items.csv.gz"))


def test_a_table_with_a_huge_field_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, shown("a", "u", [1, 2]))
    (tmp_path / "items.csv").write_text(f"id,title\n1,{'x' * 200_000}\n")
    with pytest.raises(DataRefused, match="line 2: found what is no CSV"):
        import_impressions(file, None, items=str(tmp_path / "items.csv"))


@pytest.mark.parametrize("gone", ["counts", "days", "requests"])
def test_nothing_is_added_to_damaged_logs(tmp_path: Path, gone: str) -> None:
    logs = tmp_path / "logs"
    import_impressions(write(tmp_path, shown("a", "u", [1, 2])), str(logs))
    if gone == "requests":
        shutil.rmtree(logs / gone)
    else:
        document = json.loads((logs / "import.json").read_text())
        (logs / "import.json").write_text(json.dumps({key: document[key] for key in document if key != gone}))
    later = write(tmp_path, shown("b", "u", [1, 2], "2026-03-03 10:00:00"))
    with pytest.raises(DataRefused, match=gone):
        import_impressions(later, str(logs), add=True)


TITLED = ",".join((*NEEDED, "title"))


def titled(titles: Sequence[str], end: str = "\n") -> bytes:
    """A file with these titles, as they stand, in its last column."""
    rows = [f"l{n},u{n},{NOON},0,{n + 1},0,{title}" for n, title in enumerate(titles)]
    return end.join([TITLED, *rows, ""]).encode()


@pytest.mark.parametrize("block", [1 << 12, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("bad", "line"), [('"5 inch', 102), ('"two\nlines"', 102), ('"two\rlines"', 102)])
def test_a_quote_never_swallows_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, end: str, bad: str, line: int
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block)
    (tmp_path / "shown.csv").write_bytes(titled(["plain"] * 100 + [bad] + ["plain"] * 900, end))
    with pytest.raises(DataRefused, match=f"line {line}: found a quote that is not closed"):
        import_impressions(str(tmp_path / "shown.csv"), None, max_bad_rows=1000)


@pytest.mark.parametrize("block", [1 << 12, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\n\n"])
def test_lines_with_quotes_that_are_closed_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, end: str, last: bytes
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block)
    titles = ['"a ""5 inch"", new"', 'a 5" screen', '""', "", '"x"'] * 100
    (tmp_path / "shown.csv").write_bytes(titled(titles, end).rstrip() + last)
    assert import_impressions(str(tmp_path / "shown.csv"), None)["counts"]["requests"] == len(titles)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('id,title\n1,"bad\n2,ok\n', "line 2: found a quote that is not closed"),
        ('id,title\n1,"two\nlines"\n', "line 2: found a quote that is not closed"),
        ('"i\nd",title\n1,a\n', "line 1: found a quote that is not closed"),
        ('id,title\n1,"a"b\n', "line 2: found what is no CSV"),
    ],
)
def test_a_table_of_items_has_one_item_a_line(tmp_path: Path, table: str, said: str) -> None:
    file = write(tmp_path, shown("a", "u", [1, 2]))
    (tmp_path / "items.csv").write_text(table)
    with pytest.raises(DataRefused, match=said):
        import_impressions(file, None, items=str(tmp_path / "items.csv"))


def test_only_line_ends_part_a_table(tmp_path: Path) -> None:
    file = write(tmp_path, shown("a", "u", [1, 2]))
    (tmp_path / "items.csv").write_text("id,title\r\n1,a\u2028b\x0bc\r\n2,d\r\n", newline="")
    import_impressions(file, str(tmp_path / "logs"), items=str(tmp_path / "items.csv"))
    assert [row["title"] for row in logs_of(tmp_path / "logs")["items"]] == ["a\u2028b\x0bc", "d"]


@pytest.mark.parametrize(
    ("header", "mapping", "said"),
    [
        (("a", "b"), [], "expected one for each of: request (which list the row belongs to); user (who saw it)"),
        (("a", *NEEDED[1:]), [], "say which with --map request=COLUMN"),
        (NEEDED, ["user=viewer"], "has no column 'viewer', but 'request_id', 'user_id'"),
        (NEEDED, ["viewer=user_id"], "expected ROLE=COLUMN with a role of request, user"),
        (NEEDED, ["user"], "--map 'user' found, expected ROLE=COLUMN"),
        (NEEDED, ["user=user_id", "user=user_id"], "names a column for user twice"),
        (NEEDED, ["user=user_id+item_id"], "only request may be several together"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, header: Sequence[str], mapping: list[str], said: str) -> None:
    (tmp_path / "shown.csv").write_text(text([["x"] * len(header)], header))
    with pytest.raises(UsageError) as refused:
        import_impressions(str(tmp_path / "shown.csv"), str(tmp_path / "logs"), mapping=mapping)
    assert said in str(refused.value)


def test_a_guess_can_be_taken_back(tmp_path: Path) -> None:
    header = (*NEEDED, "likes")
    file = write(tmp_path, [(*row, "many") for row in shown("a", "u", [1, 2])], header)
    with pytest.raises(DataRefused, match="found like 'many'"):
        import_impressions(file, None)
    assert "like" not in import_impressions(file, None, mapping=["like="])["columns"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_parts_the_fields_is_found(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "shown.csv").write_text(text(shown("a", "u", ["x y", "z"]), delimiter=delimiter))
    assert import_impressions(str(tmp_path / "shown.csv"), None)["counts"]["impressions"] == 2


def test_a_name_that_promises_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="found no such file, expected a CSV of impressions; check the path"):
        import_impressions(str(tmp_path / "shown.csv"), None)
    (tmp_path / "shown.csv.gz").write_text(text(shown("a", "u", [1, 2])))
    with pytest.raises(DataRefused, match="found a file that is not packed"):
        import_impressions(str(tmp_path / "shown.csv.gz"), None)


def test_names_are_compared_without_case_and_punctuation(tmp_path: Path) -> None:
    header = ("Session ID", "viewerId", "Timestamp", "Rank", "ProductID", "Clicked")
    document = import_impressions(write(tmp_path, shown("a", "u", [1, 2]), header), None)
    assert document["columns"] == (
        "request=Session ID,user=viewerId,time=Timestamp,position=Rank,item=ProductID,click=Clicked"
    )


# ------------------------------------------------------------------------------------------------------- the command


def test_a_look_writes_nothing_and_says_what_a_night_would_stumble_over(tmp_path: Path) -> None:
    rows = [row for n in range(10) for row in shown(f"l{n}", f"u{n}", [1, 2, 3])]
    rows += [row for n in range(10) for row in shown(f"m{n}", f"u{n}", [1, 2, 3], "2026-03-03 09:00:00")]
    rows += shown("z", "u1", [1, 2, 3], "2026-03-05 09:00:00")
    file = write(tmp_path, rows)
    result = CliRunner().invoke(app, ["import", "csv", file, "--dry-run", "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    said = " ".join(document["warnings"])
    assert "1 days without a row (2026-03-04)" in said and "`goalrank day skip" in said
    assert "--until 2026-03-04" in said and f"a promotion needs {MINIMUM_USERS}" in said
    assert [path.name for path in tmp_path.iterdir()] == ["shown.csv"]


def test_nothing_to_warn_of(newspaper: Path) -> None:
    document = json.loads((newspaper / "logs" / "import.json").read_text())
    assert warnings(document) == []


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ([], 2, "no --out found"),
        (["--out", "logs", "--add", "--dry-run"], 2, "expected one of them"),
        (["--out", "logs", "--since", "soon"], 2, "expected a day such as"),
        (["--out", "logs", "--time-zone", "Mars/Olympus"], 2, "time zone 'Mars/Olympus' found"),
        (["--out", "logs", "--time-zone", "Europe"], 2, "time zone 'Europe' found"),
        (["--out", "logs", "--seed", "-1"], 2, "seed -1 found, expected a whole number from 0 up"),
        (["--out", "."], 2, "a folder that is not empty"),
        (["--out", "logs", "--map", "time=click,click=event_time"], 3, "unreadable rows found"),
    ],
)
def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], code: int, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, shown("a", "u", [1, 2]))
    result = CliRunner().invoke(app, ["import", "csv", "shown.csv", *flags])
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shown.csv"]
