"""One night meets a full disk, then an online store that is away, then a tracking server that is away; each attempt
says so and ends with 75, each report is published, and the last attempt ends as if nothing had been."""

from __future__ import annotations

from typing import Any

from components.extract_features.snapshots import Snapshot, dates
from components.promote_model.journal import open_intent
from components.registry import RANKER
from goalrank.errors import EXIT_DONE, EXIT_TRY_AGAIN
from tests.faults.conftest import Seen, Untried
from tests.faults.nights import Nights, away, can_mount, flags, goalrank, on_a_small_disk, resume, run_night
from tests.faults.registry_on_disk import tags, versions

ROOM = 7_000_000
"""Bytes left on the small disk: enough to begin, not enough for a snapshot."""

CLOSED_PORT = "http://127.0.0.1:9"


def assert_try_again(nights: Nights, result: dict[str, Any], said: str) -> None:
    assert (result["verdict"], result["exit_code"]) == ("failed", EXIT_TRY_AGAIN), result["reason"]
    assert said in result["reason"]
    assert result["report"], "the report is published all the same"
    assert nights.champion() == nights.first["model_version"]


def test_one_night_through_all_three(nights: Nights, seen: Seen, untried: Untried) -> None:
    place, small_disk = nights.workspace, can_mount()
    if not small_disk:
        untried("a full disk", "no process of ours may mount a file system here: unshare --mount --map-root-user")
    else:
        full = on_a_small_disk(place, ROOM, "nightly", *flags(place))
        assert_try_again(nights, full, "the disk is full")
        for date in dates(place / "snapshots"):
            assert Snapshot.read(place / "snapshots", date).problem() == "", "what is committed is whole"
        seen(
            f"a disk with {ROOM // 10**6} MB left",
            f"exit {full['exit_code']} at {full['stages'][-2]['name']}, the disk is full, report published",
        )
    with away(place / "feast/online.db"):
        store = resume(place) if small_disk else run_night(place)
        assert_try_again(nights, store, "the online store is away")
    seen("the online store away", f"exit {store['exit_code']} at {store['stages'][-2]['name']}")
    database = place / "mlflow/mlflow.db"
    with away(database):
        tracking = resume(place)
    assert_try_again(nights, tracking, "MLflow at sqlite:///")
    seen("the tracking database away", f"exit {tracking['exit_code']} at {tracking['stages'][-2]['name']}")
    clean = resume(place)
    assert (clean["exit_code"], clean["date"]) == (EXIT_DONE, nights.next_date), clean["reason"]
    assert clean["verdict"] in ("promoted", "kept")
    assert dates(place / "snapshots") == [nights.first["date"], nights.next_date]
    assert not list((place / "snapshots/data").glob("*.partial*"))
    assert not list(place.glob("nights/*/*/.reserve"))
    assert open_intent(str(place / "journal")) is None
    of_date = [tags(database, RANKER, version)["date"] for version in versions(database, RANKER)]
    assert of_date == [nights.first["date"], nights.next_date]
    seen("all back, the same night resumed", f"exit 0, {clean['verdict']}, one version and one snapshot for its date")


def test_a_tracking_server_that_is_away(nights: Nights, seen: Seen) -> None:
    place = ["--workspace", str(nights.workspace)]
    for command in (["rank", "--example"], ["clean"]):
        done = goalrank(*command, *place, GOALRANK_TRACKING_URI=CLOSED_PORT)
        assert done.returncode == EXIT_TRY_AGAIN, done.stderr[-500:]
        assert f"MLflow at {CLOSED_PORT} does not answer" in done.stderr
    seen(
        "rank and clean with no tracking server behind its address",
        f"exit {EXIT_TRY_AGAIN}, the address named",
    )
