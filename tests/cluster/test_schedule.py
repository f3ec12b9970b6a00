"""One recurring run, whatever happens: applied twice, changed, cut short, paused, refused, through kfp's own client."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest

from console.cluster import EXIT_DIFFERS
from console.kubeflow import desired, parameters
from console.settings import Settings
from goalrank.errors import EXIT_TRY_AGAIN, EXIT_USAGE
from pipelines.kubeflow import LONGEST_MESSAGE, TRIES, Address, _error
from pipelines.nightly import nightly
from pipelines.recurring import NAME
from pipelines.schedule import ALWAYS_ONCE, Schedule, warning_of_clock_changes
from tests.cluster.kfp_server import Fault, KubeflowPipelines
from tests.cluster.test_gpu_nodes import IMAGES
from tests.cluster.typed import OTHER_IMAGE, TOKEN, Terminal


def only(server: KubeflowPipelines) -> dict[str, Any]:
    """The one recurring run there is, enabled."""
    (run,) = server.recurring.values()
    assert run["mode"] == "ENABLE"
    return run


def test_applied_once_and_again(server: KubeflowPipelines, terminal: Terminal) -> None:
    assert terminal.json("schedule", "diff")["actions"] == ["create the recurring run"]
    assert server.changes == []
    first = terminal.json("schedule", "apply")
    run = only(server)
    assert (first["changed"], first["id"]) == (True, run["recurring_run_id"])
    assert (run["display_name"], run["max_concurrency"], run["no_catchup"]) == (NAME, "1", True)
    assert run["trigger"]["cron_schedule"]["cron"] == "0 30 2 * * *"
    given = run["runtime_config"]["parameters"]
    assert (given["date"], given["run_uri"]) == ("auto", "/workspace/nights/scheduled/auto")
    assert "[[" not in str(given), "Kubeflow fills in no macro for v2 pipelines"
    assert f"goalrank state {first['state']}; time zone UTC" in run["description"]
    before = len(server.changes)
    again = terminal.json("schedule", "apply")
    assert (again["changed"], again["id"], len(server.changes)) == (False, first["id"], before)
    equal = terminal.json("schedule", "diff")
    assert (equal["exit_code"], equal["kind"], equal["actions"], equal["changes"]) == (0, "equal", [], [])


CHANGES = [
    (["--cron", "0 0 4 * * *"], {}, "cron"),
    (["--time-zone", "Europe/Berlin"], {}, "time_zone"),
    ([], {"GOALRANK_TRAIN_IMAGE": OTHER_IMAGE}, "pipeline"),
    ([], {"GOALRANK_GPUS": "0"}, "pipeline"),
    ([], {"GOALRANK_GPU_NODE_LABEL": "pool=gpu"}, "pipeline"),
    ([], {"GOALRANK_PRESET": "base"}, "parameters.preset"),
    ([], {"GOALRANK_SERVICE_ACCOUNT": "another"}, "service_account"),
]


@pytest.mark.parametrize(("flags", "environment", "field"), CHANGES, ids=lambda value: str(value))
def test_a_change_replaces_it(
    server: KubeflowPipelines, terminal: Terminal, flags: list[str], environment: dict[str, str], field: str
) -> None:
    server.granted.add(("", "serviceaccounts", "another", "use"))  # else an administrator's business
    first = terminal.json("schedule", "apply")["id"]
    found = terminal.json("schedule", "diff", *flags, **environment)
    assert (found["exit_code"], found["kind"]) == (EXIT_DIFFERS, "differs")
    assert [change["field"] for change in found["changes"]] == [field]
    server.enabled_after.clear()
    done = terminal.json("schedule", "apply", *flags, **environment)
    assert only(server)["recurring_run_id"] == done["id"] != first
    assert done["changes"] == found["changes"]
    # Made disabled, the old one disabled, the new one enabled, the old one deleted: never two.
    assert server.enabled_after == [1, 0, 1, 1]
    assert terminal.json("schedule", "diff", *flags, **environment)["exit_code"] == 0


def test_a_diff_for_a_person(server: KubeflowPipelines, terminal: Terminal) -> None:
    terminal.json("schedule", "apply")
    said = terminal.type("schedule", "diff", "--cron", "0 0 4 * * *")
    assert said.code == EXIT_DIFFERS
    assert said.out.splitlines() == ["- replace the recurring run", "  cron: '0 30 2 * * *' -> '0 0 4 * * *'"]


STEPS = (
    "POST /experiments$",
    "POST /pipelines/upload$",
    "POST /pipelines/upload_version",
    "POST /recurringruns$",
    "POST /recurringruns/.*:disable",
    "POST /recurringruns/.*:enable",
    "DELETE /recurringruns",
)


@pytest.mark.parametrize("after", [False, True], ids=["before it took effect", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_cut_short_anywhere_the_next_apply_mends_it(
    server: KubeflowPipelines, terminal: Terminal, step: str, after: bool
) -> None:
    first_time = step in STEPS[:2]
    if not first_time:
        terminal.json("schedule", "apply")
    change = {} if first_time else {"GOALRANK_TRAIN_IMAGE": OTHER_IMAGE, "GOALRANK_CRON": "0 0 4 * * *"}
    server.faults = [Fault(step, 503, times=TRIES, after=after)]
    cut = terminal.json("schedule", "apply", **change)
    if step.startswith("DELETE") and after:
        assert cut["exit_code"] == 0  # asked for again, it is gone: all the better
    else:
        assert (cut["exit_code"], cut["kind"]) == (EXIT_TRY_AGAIN, "try_again")
        assert "503: injected" in cut["reason"]
    server.faults = []
    assert terminal.json("schedule", "apply", **change)["paused"] is False
    expected = change.get("GOALRANK_CRON", "0 30 2 * * *")
    assert only(server)["trigger"]["cron_schedule"]["cron"] == expected
    assert max(server.enabled_after) == 1
    assert terminal.json("schedule", "diff", **change)["exit_code"] == 0
    assert len({(each["pipeline_id"], each["display_name"]) for each in server.versions.values()}) == len(
        server.versions
    )


@pytest.mark.parametrize("step", STEPS[4:])
@pytest.mark.parametrize("status", [503, 409, 429, 0], ids=str)
def test_what_may_be_repeated_is(server: KubeflowPipelines, terminal: Terminal, step: str, status: int) -> None:
    terminal.json("schedule", "apply")
    server.faults = [Fault(step, status, times=TRIES - 1)]
    assert terminal.json("schedule", "apply", "--cron", "0 0 4 * * *")["changed"]
    assert only(server)["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"


def test_lists_of_several_pages(terminal: Terminal, server: KubeflowPipelines) -> None:
    """Ours is on the last page of every list, behind others of other names."""
    server.largest_page = 2
    for number in range(5):
        server._add(server.experiments, "experiment_id", {"display_name": f"other {number}"})
        server._add(server.pipelines, "pipeline_id", {"display_name": f"other {number}"})
    terminal.json("schedule", "apply")
    ours = only(server)
    elsewhere = {"pipeline_version_reference": {"pipeline_id": "others", "pipeline_version_id": "1"}}
    for number in range(5):
        server._add(server.recurring, "recurring_run_id", {**ours, "display_name": f"other {number}", **elsewhere})
        server._add(server.recurring, "recurring_run_id", {**ours, "display_name": NAME})
    done = terminal.json("schedule", "apply")
    assert done["actions"] == ["delete 5 recurring runs of the same name"]
    named = [run for run in server.recurring.values() if run["display_name"] == NAME]
    assert [run["recurring_run_id"] for run in named] == [ours["recurring_run_id"]]
    assert len(server.recurring) == 6
    assert (len(server.pipelines), len(server.experiments)) == (6, 6)


@pytest.mark.parametrize("multi_user", [False, True])
def test_somebody_cloned_it(server: KubeflowPipelines, terminal: Terminal, multi_user: bool) -> None:
    """In the user interface, of an older version, into another experiment: else each night would run twice."""
    server.multi_user, server.largest_page = multi_user, 2
    namespace = {"GOALRANK_KFP_NAMESPACE": "team-a"} if multi_user else {}
    ours = terminal.json("schedule", "apply", **namespace)["id"]
    reference = server.recurring[ours]["pipeline_version_reference"]
    cloned = {
        **server.recurring[ours],
        "display_name": "Clone of goalrank-nightly",
        "experiment_id": "Default",
        "pipeline_version_reference": {**reference, "pipeline_version_id": "an older one"},
    }
    paused = server._add(server.recurring, "recurring_run_id", {**cloned, "mode": "DISABLE"})["recurring_run_id"]
    clone = server._add(server.recurring, "recurring_run_id", cloned)["recurring_run_id"]
    told = {"id": clone, "name": "Clone of goalrank-nightly", "cron": "0 30 2 * * *"}

    found = terminal.json("schedule", "diff", **namespace)
    assert (found["exit_code"], found["others"]) == (EXIT_DIFFERS, [told])
    assert "disable recurring run 'Clone of goalrank-nightly'" in found["actions"][0]
    shown = terminal.json("schedule", "show", **namespace)
    assert shown["others"] == [told] and [run["id"] for run in shown["recurring_runs"]] == [ours]
    assert "--disable-others" in terminal.type("schedule", "show", **namespace).out

    before = len(server.changes)
    refused = terminal.json("schedule", "apply", "--cron", "0 0 4 * * *", **namespace)
    assert (refused["exit_code"], len(server.changes)) == (EXIT_USAGE, before)
    assert "'Clone of goalrank-nightly' (0 30 2 * * *" in refused["reason"] and "--disable-others" in refused["reason"]

    done = terminal.json("schedule", "apply", "--disable-others", **namespace)
    assert (done["changed"], done["disabled"], done["id"]) == (True, [told], ours)
    assert [run["recurring_run_id"] for run in server.enabled] == [ours]
    assert {clone, paused} < server.recurring.keys(), "disabled, for whoever made it"
    again = terminal.json("schedule", "apply", "--disable-others", **namespace)
    assert (again["changed"], again["disabled"]) == (False, [])
    assert terminal.json("schedule", "diff", **namespace)["exit_code"] == 0


def test_the_commit_is_told_and_makes_no_other_night(
    server: KubeflowPipelines, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is the images' code: one that changes neither them nor a parameter would replace the run for nothing,
    and begin a backfill anew."""
    monkeypatch.setattr("console.kubeflow.commit", lambda: "older")
    first = terminal.json("schedule", "apply")
    assert only(server)["runtime_config"]["parameters"]["commit"] == "older"
    with desired(Settings(**IMAGES)) as wanted:
        mark = wanted.digest_of_night
    monkeypatch.setattr("console.kubeflow.commit", lambda: "newer")
    with desired(Settings(**IMAGES)) as wanted:
        assert wanted.digest_of_night == mark
    assert terminal.json("schedule", "diff")["changes"] == []
    assert terminal.json("schedule", "apply")["id"] == first["id"]
    terminal.json("schedule", "apply", GOALRANK_TRAIN_IMAGE=OTHER_IMAGE)
    assert only(server)["runtime_config"]["parameters"]["commit"] == "newer"


def test_somebody_changed_it_by_hand(server: KubeflowPipelines, terminal: Terminal) -> None:
    """The description still says what was applied: the fields decide."""
    terminal.json("schedule", "apply")
    only(server)["runtime_config"]["parameters"]["allow_bootstrap"] = True
    found = terminal.json("schedule", "diff")
    assert found["changes"] == [{"field": "parameters.allow_bootstrap", "found": True, "expected": False}]
    terminal.json("schedule", "apply")
    assert only(server)["runtime_config"]["parameters"]["allow_bootstrap"] is False


def test_two_at_once_agree(server: KubeflowPipelines, terminal: Terminal) -> None:
    """Both made one; whoever looks next keeps the older."""
    older = terminal.json("schedule", "apply")["id"]
    server._add(server.recurring, "recurring_run_id", dict(only(server)))
    assert terminal.json("schedule", "apply")["id"] == older
    assert only(server)["recurring_run_id"] == older


def test_paused_and_resumed(server: KubeflowPipelines, terminal: Terminal) -> None:
    assert terminal.json("schedule", "pause")["kind"] == "usage"
    terminal.json("schedule", "apply")
    assert terminal.json("schedule", "pause")["changed"] is True
    assert terminal.json("schedule", "pause")["changed"] is False
    assert server.enabled == []
    assert terminal.json("schedule", "show")["paused"] is True
    assert terminal.json("schedule", "diff") | {"exit_code": 0} == {
        "exit_code": 0, "kind": "equal", "changes": [], "actions": [], "paused": True, "others": [],
    }  # fmt: skip
    changed = terminal.json("schedule", "apply", "--cron", "0 0 4 * * *")
    assert (changed["changed"], changed["paused"], server.enabled) == (True, True, [])
    (run,) = server.recurring.values()
    assert run["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    assert terminal.json("schedule", "resume")["changed"] is True
    assert only(server)["recurring_run_id"] == changed["id"]
    assert max(server.enabled_after) == 1


def test_a_pause_after_a_cut_is_no_cut(server: KubeflowPipelines, terminal: Terminal) -> None:
    terminal.json("schedule", "apply")
    server.faults = [Fault("POST /recurringruns/.*:enable", 503, times=TRIES)]
    assert terminal.json("schedule", "apply", "--cron", "0 0 4 * * *")["exit_code"] == EXIT_TRY_AGAIN
    assert (len(server.recurring), server.enabled) == (2, [])
    shown = terminal.type("schedule", "show")
    assert "More than one: an apply was interrupted" in shown.out
    assert "an apply was interrupted" in terminal.json("schedule", "resume")["reason"]
    assert terminal.json("schedule", "pause")["paused"] is True
    assert terminal.json("schedule", "apply", "--cron", "0 0 4 * * *")["paused"] is True
    assert (len(server.recurring), server.enabled) == (1, [])


def test_shown(server: KubeflowPipelines, terminal: Terminal) -> None:
    assert terminal.json("schedule", "show") == {
        "exit_code": 0, "paused": False, "recurring_runs": [], "others": [], "warnings": [],
    }  # fmt: skip
    assert "makes one" in terminal.type("schedule", "show").out
    applied = terminal.json("schedule", "apply", "--time-zone", "Europe/Berlin")
    (shown,) = terminal.json("schedule", "show")["recurring_runs"]
    assert (shown["cron"], shown["time_zone"], shown["enabled"]) == ("0 30 2 * * *", "Europe/Berlin", True)
    assert shown["next"] == applied["next"] and len(shown["next"]) == 3
    assert shown["pipeline"] in {version["display_name"] for version in server.versions.values()}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GOALRANK_KFP_TOKEN": "another"}, "the token was refused (401)"),
        ({"GOALRANK_KFP_TOKEN": ""}, "it wants a token and none is set (401)"),
        ({"GOALRANK_KFP_TOKEN_FILE": "/nowhere/token"}, "are both set"),
        ({"GOALRANK_KFP_TOKEN": "", "GOALRANK_KFP_TOKEN_FILE": "/nowhere/token"}, "cannot be read (FileNotFoundError)"),
        ({"GOALRANK_KFP_TOKEN": "two\nlines"}, "a blank or a character that no token has"),
        ({"GOALRANK_KFP_ENDPOINT": ""}, "GOALRANK_KFP_ENDPOINT '' found"),
        ({"GOALRANK_KFP_ENDPOINT": "kubeflow.example"}, "expected the address of Kubeflow Pipelines"),
    ],
)
@pytest.mark.parametrize("words", [("schedule", "show"), ("schedule", "apply"), ("submit", "--date", "2026-01-05")])
def test_who_asks_and_where(
    server: KubeflowPipelines, terminal: Terminal, environment: dict[str, str], said: str, words: tuple[str, ...]
) -> None:
    end = terminal.type(*words, "--json", **environment)
    assert (end.code, end.document["kind"]) == (EXIT_USAGE, "usage")
    assert said in end.document["reason"]
    given = environment.get("GOALRANK_KFP_TOKEN", "")
    assert TOKEN not in end.out + end.err and (not given or given not in end.out + end.err)
    assert server.changes == []


def test_a_token_from_a_file(server: KubeflowPipelines, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    file = {"GOALRANK_KFP_TOKEN": "", "GOALRANK_KFP_TOKEN_FILE": str(tmp_path / "token")}
    assert terminal.json("schedule", "apply", **file)["changed"]
    (tmp_path / "token").write_text("\n")
    assert "is empty, expected a token" in terminal.json("schedule", "show", **file)["reason"]


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault("healthz", 503, times=99), EXIT_TRY_AGAIN, "503: injected"),
        (Fault("healthz", 0, times=99), EXIT_TRY_AGAIN, "does not answer"),
        (Fault("healthz", 404, times=99), EXIT_TRY_AGAIN, "check GOALRANK_KFP_ENDPOINT"),
        (Fault("healthz", 302, header={"Location": "/login"}), EXIT_USAGE, "to a log-in as a rule"),
        (
            Fault("healthz", 200, header={"body": "<html>Log in", "Content-Type": "text/html"}),
            EXIT_TRY_AGAIN,
            "not as Kubeflow Pipelines does",
        ),
        (Fault("GET /recurringruns", 403, said="list recurringruns"), EXIT_USAGE, "403: list recurringruns"),
        (Fault("GET /recurringruns", 500, times=99), EXIT_TRY_AGAIN, "500: injected"),
        (Fault("POST /recurringruns", 400, said=f"bad {TOKEN}"), EXIT_USAGE, "refuses the request (400: bad ...)"),
    ],
    ids=lambda value: value.pattern if isinstance(value, Fault) else None,
)
def test_a_server_that_errs(server: KubeflowPipelines, terminal: Terminal, fault: Fault, code: int, said: str) -> None:
    if "GET /recurringruns" in fault.pattern:
        terminal.json("schedule", "apply")
    server.faults = [fault]
    end = terminal.type("schedule", "apply", "--cron", "0 0 4 * * *", "--json")
    assert (end.code, said in end.document["reason"]) == (code, True), end
    assert TOKEN not in end.out + end.err


def test_a_server_of_many_users_wants_a_namespace(server: KubeflowPipelines, terminal: Terminal) -> None:
    server.multi_user = True
    assert "set GOALRANK_KFP_NAMESPACE" in terminal.json("schedule", "apply")["reason"]
    assert server.changes == []
    assert terminal.json("schedule", "apply", GOALRANK_KFP_NAMESPACE="team-a")["changed"]
    assert only(server)


def test_a_password_that_is_on_the_server_already_is_not_shown(server: KubeflowPipelines, terminal: Terminal) -> None:
    """Put there by an older release, or by hand; the next apply takes it away."""
    terminal.json("schedule", "apply")
    only(server)["runtime_config"]["parameters"]["tracking_uri"] = "https://bob:hunter2@mlflow.example"
    said = [terminal.type("schedule", word, *flag) for word in ("diff", "show") for flag in ((), ("--json",))]
    assert not any("hunter2" in each.out + each.err for each in said)
    assert "  parameters.tracking_uri: 'https://...@mlflow.example' -> 'http://mlflow:5000'" in said[0].out
    done = terminal.type("schedule", "apply")
    assert "https://...@mlflow.example" in done.out and "hunter2" not in done.out + done.err
    assert only(server)["runtime_config"]["parameters"]["tracking_uri"] == "http://mlflow:5000"


def test_neither_is_half_of_one() -> None:
    """A long answer is cut once the passwords are out of it."""
    said = "x" * (LONGEST_MESSAGE - 24) + " https://bob:hunter2@mlflow.example"
    assert "hunt" not in str(_error(Address("http://kubeflow"), "", 500, said))


def test_neither_is_the_one_of_kubeflows_own_address(terminal: Terminal) -> None:
    away = terminal.type("schedule", "show", "--json", GOALRANK_KFP_ENDPOINT="http://bob:hunter2@127.0.0.1:9")
    assert (away.code, "http://...@127.0.0.1:9 does not answer" in away.document["reason"]) == (EXIT_TRY_AGAIN, True)
    assert "hunter2" not in away.out + away.err


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("0 30 2 * * *", "UTC", ""),
        ("0 30 4 * * *", "Europe/Berlin", ""),
        ("0 30 2 * * MON-FRI", "Europe/Berlin", ""),
        (
            "0 30 2 * * *",
            "Europe/Berlin",
            "Warning: when the clock of Europe/Berlin is changed, this schedule skips a night on 2026-03-29 at 02:30 "
            "and may run one twice on 2026-10-25 at 02:30; an hour that is never skipped or repeated, such as 04:30, "
            "avoids it.",
        ),
        ("0 30 0 * * *", "America/Santiago", "this schedule skips a night on 2026-09-06 at 00:30; an hour"),
        ("0 30 23 * * *", "America/Santiago", "this schedule may run one twice on 2026-04-04 at 23:30; an hour"),
    ],
)
def test_when_the_clock_is_changed(cron: str, zone: str, said: str) -> None:
    warning = warning_of_clock_changes(Schedule.parse(cron, zone), datetime(2026, 1, 1, tzinfo=UTC))
    assert said in warning and bool(said) == bool(warning)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "nights"),
    [
        ("0 30 2 * * *", "Europe/Berlin", (2026, 3, 28), ["2026-03-28T02:30:00+01:00", "2026-03-30T02:30:00+02:00"]),
        (
            "0 30 2 * * *",
            "Europe/Berlin",
            (2026, 10, 24, 12),
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
        ),
        ("0 30 2 * * *", "UTC", (2026, 3, 28, 12), ["2026-03-29T02:30:00+00:00", "2026-03-30T02:30:00+00:00"]),
        ("0 30 0 * * *", "America/Santiago", (2026, 9, 5), ["2026-09-05T00:30:00-04:00", "2026-09-07T00:30:00-03:00"]),
        (
            "0 30 23 * * *",
            "America/Santiago",
            (2026, 4, 4, 12),
            ["2026-04-04T23:30:00-03:00", "2026-04-04T23:30:00-04:00", "2026-04-05T23:30:00-04:00"],
        ),
        (
            "0 0 1,2 * * *",
            "Europe/Berlin",
            (2026, 10, 24, 23, 30),
            ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"],
        ),
    ],
)
def test_nights_are_those_that_the_clock_shows(cron: str, zone: str, after: tuple[int, ...], nights: list[str]) -> None:
    schedule, at = Schedule.parse(cron, zone), datetime(*after, tzinfo=UTC)  # type: ignore[misc]
    for expected in nights:
        found = schedule.next_after(at)
        assert found is not None and found.isoformat() == expected
        at = found


def test_the_hour_we_name_is_shown_once_a_day_everywhere() -> None:
    cron = f"0 {ALWAYS_ONCE.minute} {ALWAYS_ONCE.hour} * * *"
    for zone in sorted(available_timezones()):
        assert Schedule.parse(cron, zone).clock_changes(datetime(2026, 1, 1, tzinfo=UTC)) == ([], []), zone


def test_changes_of_the_clock_are_told(terminal: Terminal) -> None:
    """Whenever it is typed, a year has a spring and an autumn."""
    night = {"GOALRANK_CRON": "0 30 2 * * *", "GOALRANK_TIME_ZONE": "Europe/Berlin"}
    assert "Warning: when the clock of Europe/Berlin is changed" in terminal.type("schedule", "apply", **night).out
    assert "Warning: when the clock of Europe/Berlin is changed" in terminal.type("schedule", "show").out
    (warning,) = terminal.json("schedule", "show")["warnings"]
    assert terminal.json("schedule", "apply", **night)["warnings"] == [warning]
    assert terminal.json("schedule", "apply")["warnings"] == terminal.json("schedule", "show")["warnings"] == []


def test_tags_where_they_are_allowed(server: KubeflowPipelines, terminal: Terminal) -> None:
    tags = {"GOALRANK_TRAIN_IMAGE": "goalrank/train:1", "GOALRANK_IMAGE_TAGS": "1"}
    assert terminal.json("schedule", "apply", **tags)["changed"]


def test_neither_help_nor_a_refusal_imports_kfp() -> None:
    code = """
import sys
from typer.testing import CliRunner
from console.main import app
import pipelines.schedule
for words in (["--help"], ["schedule", "--help"], ["backfill", "--help"], ["schedule", "apply", "--cron", "0 3 * * *"]):
    CliRunner().invoke(app, words)
print(sorted(name for name in ("kfp", "kfp_server_api", "kubernetes") if name in sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.strip() == "[]"


NOT_GIVEN = {
    "world_uri": "there is no simulated world on a cluster",
    "full_rebuild": "of one night: submit --full-rebuild",
    "date": "of each night",
    "run_uri": "of each night",
}


def test_every_parameter_of_the_night_comes_from_the_settings() -> None:
    """A setting that did not reach the cluster's night would be ignored without a word."""
    given = parameters(Settings(warm_start="champion", group_plan="own=4", objective="temperature=1"))
    named = (given["warm_start"], given["group_plan"], given["objective"])
    assert named == ("champion", "own=4", "temperature=1")
    assert given.keys() | NOT_GIVEN.keys() == set(inspect.signature(nightly.pipeline_func).parameters)
    assert not given.keys() & NOT_GIVEN.keys()
