"""The same date twice is one promotion. (One enabled recurring run of a schedule: test_12 against a server's API; the
cluster's own is a test of the cluster.)"""

from __future__ import annotations

import subprocess
import time

from goalrank.errors import EXIT_TRY_AGAIN
from tests.faults.conftest import Seen
from tests.faults.nights import COMMAND, NIGHT_SECONDS, Nights, answer, flags, run_night
from tests.faults.registry_on_disk import versions


def test_the_same_date_twice_is_one_promotion(nights: Nights, seen: Seen) -> None:
    """The date once more, and while it runs a third time at the same moment."""
    again = subprocess.Popen(
        [*COMMAND, "nightly", *flags(nights.workspace), "--date", nights.first["date"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(nights.workspace.glob("nights/*/*"))) < 2 and again.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    beside = run_night(nights.workspace, "--date", nights.first["date"])
    assert (beside["exit_code"], beside["run_id"]) == (EXIT_TRY_AGAIN, None)
    assert "another night runs" in beside["reason"]
    said, _ = again.communicate(timeout=NIGHT_SECONDS)
    second = answer(said)
    assert (second["verdict"], second["exit_code"]) == ("kept", 0), second["reason"]
    assert second["snapshot_id"] == nights.first["snapshot_id"]
    assert second["model_version"] == nights.first["model_version"] == nights.champion()
    promotions = [event for event in nights.journal() if event["event"] == "intent"]
    assert len(promotions) == 1
    assert versions(nights.database, "goalrank-ranker") == [nights.first["model_version"]]
    seen(
        f"the night of {nights.first['date']} once more, and beside it a third start",
        f"{second['verdict']}, exit 0, same snapshot and version, {len(promotions)} promotion in the journal; the "
        f"third: exit {beside['exit_code']}",
    )
