"""7. A late-arriving log row reaches offline and online features on the next run; online reads work meanwhile."""

from __future__ import annotations

import multiprocessing
from contextlib import nullcontext
from pathlib import Path

import pytest

from components.extract_features import night
from components.feature_store import offline_rows, online_rows, open_store
from components.materialize_features.main import run as materialize
from components.spark import spark_session
from components.step import Step
from tests.components.log_samples import Logs, at, plus
from tests.components.test_materialize_features import _read_on
from tests.components.tiny_snapshot import midnight
from tests.faults.conftest import Seen

ONE, TWO = "2026-01-01", "2026-01-02"


def make_logs() -> Logs:
    """User 1 is shown two items on the first day; the second one, and a whole older request, arrive a day late."""
    logs = Logs()
    for item in range(11, 17):
        logs.item(ONE, item, [item % 5], at(ONE), f"item {item}")
    logs.user(ONE, 1, ["age=25"])
    logs.request(ONE, "a", 1, at(ONE, 1000), range(11, 17))
    logs.impression(ONE, "a", 1, 11, click=1)
    logs.impression(TWO, "a", 2, 12, click=1)
    logs.request(TWO, "earlier", 1, at(ONE, 500), range(11, 17))
    logs.impression(TWO, "earlier", 1, 13, click=1)
    logs.request(TWO, "b", 2, at(TWO, 10), range(11, 17))
    logs.impression(TWO, "b", 1, 14)
    return logs


@pytest.mark.timeout(600)
def test_a_late_row_counts_from_the_next_night_on(tmp_path: Path, seen: Seen) -> None:
    logs, feast = make_logs().write(tmp_path / "logs"), str(tmp_path / "feast")
    step = Step("extract_features", str(tmp_path / "run"))
    with spark_session(step) as spark:
        for date in (ONE, TWO):
            extracted = night.extract(
                step, lambda _: nullcontext(spark), str(logs), str(tmp_path / "snapshots"), date, False, window_days=10
            )
            extracted.save(tmp_path / f"{date}.json")
    assert step.figures["mode"] == "incremental" and step.figures["late_impressions"] == 1

    def bring_in(date: str) -> None:
        materialize(str(tmp_path / f"{date}.json"), feast, str(tmp_path / f"set-{date}"), 10, str(tmp_path / "run"))

    bring_in(ONE)
    context = multiprocessing.get_context("spawn")
    ready, stop, answer = context.Event(), context.Event(), context.Queue()
    reader = context.Process(target=_read_on, args=(feast, ready, stop, answer))
    reader.start()
    try:
        assert ready.wait(300)
        bring_in(TWO)
    finally:
        stop.set()
        reads, error, values = answer.get(timeout=120)
        reader.join(60)
    assert error == "" and reads > 0
    assert values <= {1, 3} and 1 in values, f"impressions of user 1 as another process read them: {values}"

    store = open_store(feast)
    now = online_rows(store, "user_id", [1]).to_pylist()[0]
    as_of = {day: offline_rows(store, "user_id", [1], midnight(day, 1)).to_pylist()[0] for day in (ONE, TWO)}
    assert (as_of[ONE]["impressions"], as_of[TWO]["impressions"], now["impressions"]) == (1, 3, 3)
    # In the order in which things happened, not in which they arrived.
    assert as_of[ONE]["history_items"] == [11]
    assert now["history_items"] == as_of[TWO]["history_items"] == [13, 11, 12]
    items = online_rows(store, "item_id", [12, 13])["clicks_total"].to_pylist()
    assert (
        items == offline_rows(store, "item_id", [12, 13], midnight(plus(TWO, 1)))["clicks_total"].to_pylist() == [1, 1]
    )
    seen(
        f"an impression and a request of {ONE} that arrive on {TWO}",
        f"in both stores after that night, history in order of time; {reads} reads meanwhile, no error",
    )
