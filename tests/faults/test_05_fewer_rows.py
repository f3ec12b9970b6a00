"""5. The same date run twice, the second time with fewer rows -> no stale rows, one snapshot, in both stores too."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from components.extract_features import night
from components.extract_features.snapshots import Snapshot, dates
from components.feature_store import offline_rows, online_rows, open_store
from components.materialize_features.main import run as materialize
from components.spark import spark_session
from components.step import Step
from goalrank import schema
from tests.components.log_samples import Logs, at, plus
from tests.components.test_extract_features import assert_as_by_hand
from tests.components.tiny_snapshot import midnight
from tests.faults.conftest import Seen

FIRST = "2026-01-01"
LAST = plus(FIRST, 1)
GONE_USER, GONE_ITEM = 9, 19


def make_logs(everything: bool) -> Logs:
    """Two days; on the second, one user and one item come up in a request that the second delivery lacks."""
    logs = Logs()
    for item in range(11, 17):
        logs.item(FIRST, item, [item % 5], at(FIRST), f"item {item}")
    for user in (1, 2):
        logs.user(FIRST, user, [f"age={user}"])
    for day in (FIRST, LAST):
        for user in (1, 2):
            logs.request(day, f"{day}-{user}", user, at(day, 100 * user), range(11, 17))
            for position in (1, 2, 3):
                logs.impression(day, f"{day}-{user}", position, 10 + position, click=position % 2)
    if everything:
        logs.user(LAST, GONE_USER, ["age=9"])
        logs.item(LAST, GONE_ITEM, [3], at(LAST), "gone")
        logs.request(LAST, "gone", GONE_USER, at(LAST, 500), [GONE_ITEM, 11, 12])
        logs.impression(LAST, "gone", 1, GONE_ITEM, click=1)
        logs.impression(LAST, "gone", 2, 11, click=1)
    return logs


@pytest.mark.timeout(600)
def test_nothing_of_the_first_delivery_is_left(tmp_path: Path, seen: Seen) -> None:
    step = Step("extract_features", str(tmp_path / "run"))
    snapshots, feast = tmp_path / "snapshots", str(tmp_path / "feast")
    found = {}
    with spark_session(step) as spark:
        for which, everything in (("more", True), ("fewer", False)):
            shutil.rmtree(tmp_path / "logs", ignore_errors=True)
            logs = make_logs(everything)
            logs.write(tmp_path / "logs")
            made = night.extract(
                step, lambda _: nullcontext(spark), str(tmp_path / "logs"), str(snapshots), LAST, False, window_days=10
            )
            assert_as_by_hand(made, logs)
            made.save(tmp_path / f"{which}.json")
            found[which] = made
    clicks = []
    for which in ("more", "fewer"):
        materialize(str(tmp_path / f"{which}.json"), feast, str(tmp_path / which), 10, str(tmp_path / "run" / which))
        store = open_store(feast)
        online = {
            "title": online_rows(store, "item_id", [GONE_ITEM])["title"].to_pylist(),
            "clicks": online_rows(store, "user_id", [GONE_USER])["clicks"].to_pylist(),
        }
        as_of = midnight(LAST, 1)
        offline = {
            "title": offline_rows(store, "item_id", [GONE_ITEM], as_of)["title"].to_pylist(),
            "clicks": offline_rows(store, "user_id", [GONE_USER], as_of)["clicks"].to_pylist(),
        }
        assert online == offline == ({"title": ["gone"], "clicks": [2]} if which == "more" else nothing())
        clicks.append(online_rows(store, "item_id", [11])["clicks_total"].to_pylist()[0])
    assert clicks == [5, 4], "the dropped request's click is still counted"
    assert dates(snapshots) == [LAST]
    committed = Snapshot.read(snapshots, LAST)
    assert committed.snapshot_id == found["fewer"].snapshot_id != found["more"].snapshot_id
    assert "gone" not in committed.read_examples()["request_id"].to_pylist()
    for view in schema.FEATURE_VIEWS.values():
        assert not {GONE_USER, GONE_ITEM} & set(committed.read_view(view.name)[view.entity].to_pylist())
    seen(
        "one date extracted and materialised twice, the second time without one request, user and item",
        "one snapshot; user and item unknown in both stores, the click no longer counted",
    )


def nothing() -> dict[str, list[None]]:
    return {"title": [None], "clicks": [None]}
