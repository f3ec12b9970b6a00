"""goalrank-schedule may do what the commands do, and nothing else; every test of theirs is held against its role, since
tests/cluster/kfp_server.py refuses what it does not grant."""

from __future__ import annotations

from goalrank.errors import EXIT_USAGE
from tests.cluster.kfp_rights import GROUP, SCHEDULE, allowed, granted
from tests.cluster.kfp_server import KubeflowPipelines
from tests.cluster.rendered import Object
from tests.cluster.test_backfill import BACKFILL, DAYS
from tests.cluster.typed import OTHER_IMAGE, Terminal


def test_the_commands_use_every_right_and_no_other(server: KubeflowPipelines, terminal: Terminal) -> None:
    for words, environment in (
        (("schedule", "apply"), {}),
        (("schedule", "apply"), {"GOALRANK_TRAIN_IMAGE": OTHER_IMAGE}),  # replaced: all that can be done to one
        (("schedule", "pause"), {}),
        (("schedule", "resume"), {}),
        (("schedule", "show"), {}),
        (("submit", "--date", DAYS[0]), {}),
        (BACKFILL, {}),  # waits for that one first
    ):
        assert terminal.json(*words, **environment)["exit_code"] == 0, words
    assert server.asked == granted()


def test_a_right_that_is_missing_is_told(server: KubeflowPipelines, terminal: Terminal) -> None:
    terminal.json("schedule", "apply")
    server.granted.remove((GROUP, "jobs", "", "disable"))
    refused = terminal.json("schedule", "pause")
    assert refused["exit_code"] == EXIT_USAGE
    assert "this token may not do that (403" in refused["reason"] and "'jobs', '', 'disable'" in refused["reason"]


def test_overlays_leave_the_role_as_it_is(objects: list[Object]) -> None:
    assert allowed(objects, SCHEDULE) == granted()
