"""The replay's bookkeeping, its faults and its traffic; its nights are real in `goalrank replay` and stubbed here."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from components.check_features.drift import population_stability
from components.gate_limits import PSI
from components.serve_model.champion import Champion
from console.replay import faults, life, traffic
from console.replay.command import print_history
from console.replay.drawing import draw
from console.replay.faults import Fault
from console.replay.history import history
from console.replay.ledger import Ledger, Plan
from console.replay.world import EXPLORATION, FIRST_NIGHT_DAYS, LOGGING_SHARE, replay_world
from console.settings import Settings
from console.workspace import Workspace
from goalrank import schema, simulator
from goalrank.errors import GoalRankError, TryAgain, UsageError
from goalrank.simulator import WorldConfig
from goalrank.verdict import ModelVersion
from tests.components.untrained_models import random_ranker

WORLD = WorldConfig(seed=5, users=60, items=40, requests_per_day=120, candidates=10, new_items_per_day=3)
NIGHTS = 5


class StubbedNights:
    """Stands in for console.night.start: real night.json files, no pipeline. Refuses partitions that are damaged."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.broken: list[str] = []
        self.fail_on: str | None = None
        self.stop_after_ending: str | None = None

    def __call__(
        self, settings: Settings, logs: str | None, date: str | None, full_rebuild: bool, console: Console
    ) -> dict[str, Any]:
        assert logs is not None and date is not None
        self.started.append(date)
        workspace = Workspace(settings.workspace)
        workspace.record_logs(workspace.logs(logs))
        night = workspace.new_night(date, {})
        if "bad_release" in os.environ.get("PYTHONPATH", ""):
            self.broken.append(date)
        if date == self.fail_on:
            replace(night, verdict="failed").write(exit_code=75)
            return {"run_id": f"{date}/{night.folder.name}", "reason": "the store is away", "exit_code": 75}
        impressions = pq.read_table(Path(logs) / "impressions" / f"dt={date}", partitioning=None)
        keys = impressions.select(["request_id", "position"])
        repeated = keys.num_rows - keys.group_by(["request_id", "position"]).aggregate([]).num_rows
        longest = max(impressions["watch_seconds"].to_pylist())
        code = 3 if repeated or longest > 10_000 else 0
        verdict = "refused" if code else "kept"
        result = {
            "exit_code": code,
            "reason": f"{repeated} rows twice, longest {longest:.0f} s",
            "model_version": None if code else str(len(self.started)),
            "snapshot_id": None,
            "seconds": {"wall": 0.0},
        }
        replace(night, verdict=verdict).write(**result)
        time.sleep(0.002)  # nights are told apart by when they began
        if date == self.stop_after_ending:
            raise KeyboardInterrupt
        return result | {"run_id": f"{date}/{night.folder.name}", "verdict": verdict}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(life, "_champion", lambda tracking_uri: None)
    return Settings.load(workspace=tmp_path / "w", preset="tiny", seed=0)


def live(settings: Settings, nights: StubbedNights, count: int = NIGHTS) -> Ledger:
    return life.live(settings, WORLD, count, Console(file=io.StringIO()), nights)


def dates(first: int, last: int) -> list[str]:
    """Newest log days of nights `first` to `last`."""
    return [WORLD.date_of(FIRST_NIGHT_DAYS + number - 2).isoformat() for number in range(first, last + 1)]


# -------------------------------------------------------------------------------------------------------- bookkeeping


def test_every_kind_of_fault_comes_once_and_never_in_the_first_night() -> None:
    assert list(faults.schedule(30).values()) == list(Fault)
    assert min(faults.schedule(30)) > 1
    for nights in range(1, 40):
        planned = faults.schedule(nights)
        assert 1 not in planned and max(planned, default=0) <= nights
        assert nights < 4 or len(planned) == 3


def test_refused_days_are_delivered_again_and_run_before_the_next(settings: Settings) -> None:
    nights = StubbedNights()
    ledger = live(settings, nights)
    planned = faults.schedule(NIGHTS)
    assert list(planned.items()) == [(2, Fault.bad_data), (3, Fault.drifting), (4, Fault.broken)]
    one, two, three, four, five = dates(1, NIGHTS)
    assert nights.started == [one, two, two, three, three, four, five]
    assert nights.broken == [four]
    assert [(run["night"], run["verdict"], run["exit_code"]) for run in ledger.runs] == [
        (1, "kept", 0),
        (2, "refused", 3),
        (3, "kept", 0),
        (3, "refused", 3),
        (4, "kept", 0),
        (4, "kept", 0),
        (5, "kept", 0),
    ]
    assert "rows twice, longest" in ledger.runs[1]["reason"]
    assert [day["night"] for day in ledger.days] == [1, 2, 3, 4, 5]
    logs = settings.workspace / "replay" / "logs"
    assert len(list((logs / "requests").glob("dt=*"))) == FIRST_NIGHT_DAYS + NIGHTS
    untouched = settings.workspace / "untouched"
    simulator.write_days(WORLD, 0, FIRST_NIGHT_DAYS + NIGHTS, str(untouched))
    for file in untouched.rglob("*.parquet"):
        assert (logs / file.relative_to(untouched)).read_bytes() == file.read_bytes(), (
            "without a champion nobody serves"
        )


def test_a_replay_that_ended_is_not_lived_twice(settings: Settings) -> None:
    first = live(settings, StubbedNights(), 2)
    again = StubbedNights()
    assert live(settings, again, 2).runs == first.runs
    assert again.started == []


def test_killed_between_the_night_and_its_note(settings: Settings) -> None:
    one = dates(1, 1)[0]
    nights = StubbedNights()
    nights.stop_after_ending = one
    with pytest.raises(KeyboardInterrupt):
        live(settings, nights, 3)
    rest = StubbedNights()
    ledger = live(settings, rest, 3)
    undisturbed = life.live(
        Settings.load(workspace=settings.workspace.with_name("other"), preset="tiny", seed=0),
        WORLD,
        3,
        Console(file=io.StringIO()),
        StubbedNights(),
    )
    assert [(run["night"], run["date"], run["verdict"]) for run in ledger.runs] == [
        (run["night"], run["date"], run["verdict"]) for run in undisturbed.runs
    ]
    assert one not in rest.started, "the night that ended is not run again"


def test_a_failed_night_ends_the_replay_and_is_resumed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    one = dates(1, 1)[0]
    nights = StubbedNights()
    nights.fail_on = one
    with pytest.raises(TryAgain, match="the replay goes on from there"):
        live(settings, nights, 2)

    def resume(settings: Settings, console: Console) -> dict[str, Any]:
        night = Workspace(settings.workspace).newest_night()
        assert night is not None and night.verdict == "failed"
        result = {"exit_code": 0, "reason": "resumed", "model_version": "1", "seconds": {"wall": 0.0}}
        replace(night, verdict="promoted").write(**result)
        return result | {"run_id": f"{night.date}/{night.folder.name}"}

    monkeypatch.setattr(life.night, "resume", resume)
    rest = StubbedNights()
    ledger = live(settings, rest, 2)
    assert ledger.runs[0]["reason"] == "resumed"
    assert one not in rest.started


def test_a_night_somebody_else_ran_is_not_taken_for_ours(settings: Settings) -> None:
    live(settings, StubbedNights(), 1)
    Workspace(settings.workspace).new_night("2026-05-05", {})
    path = settings.workspace / "replay.json"
    document = json.loads(path.read_text())
    document["plan"]["nights"] = 2
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="the night 2026-05-05/1 of .* was not started"):
        live(settings, StubbedNights(), 2)


@pytest.mark.parametrize(
    ("change", "found"),
    [({"nights": 9}, "nights 9"), ({"seed": 4}, "seed 4"), ({"world": "{}"}, "world another")],
)
def test_another_replay_in_the_workspace(settings: Settings, change: dict[str, Any], found: str) -> None:
    plan = replace(Plan(2, "tiny", 0, WORLD.to_json()), **change)
    settings.workspace.mkdir()
    Ledger(settings.workspace / "replay.json", plan).write()
    with pytest.raises(UsageError, match=found):
        live(settings, StubbedNights(), 2)


def test_a_workspace_of_other_logs_is_refused(settings: Settings) -> None:
    settings.workspace.mkdir()
    Workspace(settings.workspace).record_logs(Path("/somewhere/else"))
    with pytest.raises(UsageError, match="use another --workspace"):
        live(settings, StubbedNights(), 2)
    assert not (settings.workspace / "replay").exists()


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    simulator.write_days(WORLD, 0, 2, str(tmp_path / "logs"))
    return tmp_path / "logs"


@pytest.mark.parametrize("fault", [Fault.bad_data, Fault.drifting])
def test_what_arrived_damaged_is_delivered_again_byte_for_byte(logs: Path, tmp_path: Path, fault: Fault) -> None:
    date = WORLD.date_of(1).isoformat()
    right = {file: file.read_bytes() for file in logs.rglob("*.parquet")}
    for _ in range(2):  # the second time a damaged day is found
        faults.damage(fault, logs, date, tmp_path / "aside")
    changed = [file for file in right if file.read_bytes() != right[file]]
    assert changed and all(f"dt={date}" in str(file) for file in changed)
    assert faults.deliver_again(logs, date, tmp_path / "aside")
    assert {file: file.read_bytes() for file in logs.rglob("*.parquet")} == right
    assert not faults.deliver_again(logs, date, tmp_path / "aside")


def test_killed_while_the_damaged_day_was_put_in_place(logs: Path, tmp_path: Path) -> None:
    date, aside = WORLD.date_of(1).isoformat(), tmp_path / "aside"
    partition = logs / "impressions" / f"dt={date}"
    right = (partition / "part-00000.parquet").read_bytes()
    (aside / "impressions").mkdir(parents=True)
    os.rename(partition, aside / "impressions" / partition.name)  # ended here
    faults.damage(Fault.drifting, logs, date, aside)
    assert (partition / "part-00000.parquet").read_bytes() != right
    faults.deliver_again(logs, date, aside)
    assert (partition / "part-00000.parquet").read_bytes() == right


def test_bad_data_is_what_the_contract_forbids(logs: Path, tmp_path: Path) -> None:
    date = WORLD.date_of(1).isoformat()
    faults.damage(Fault.bad_data, logs, date, tmp_path / "aside")
    requests = pq.read_table(logs / "requests" / f"dt={date}", partitioning=None)
    impressions = pq.read_table(logs / "impressions" / f"dt={date}", partitioning=None)
    assert requests["user_id"].null_count == -(-requests.num_rows // faults.USER_LOST_EVERY)
    keys = impressions.select(["request_id", "position"])
    assert keys.group_by(["request_id", "position"]).aggregate([]).num_rows < keys.num_rows
    assert [field.type for field in impressions.schema] == [field.type for field in schema.IMPRESSIONS]


def test_milliseconds_are_far_over_the_drift_gates_limit(logs: Path, tmp_path: Path) -> None:
    yesterday, date = (WORLD.date_of(day).isoformat() for day in (0, 1))
    faults.damage(Fault.drifting, logs, date, tmp_path / "aside")
    totals = []
    for day in (yesterday, date):
        shown = pq.read_table(logs / "impressions" / f"dt={day}", partitioning=None)
        summed = shown.group_by("request_id").aggregate([("watch_seconds", "sum")])
        totals.append(summed["watch_seconds_sum"].to_numpy().astype(float))
    assert PSI.beyond_critical(population_stability(totals[0], totals[1]).psi)


_LOSS = """
import torch
from goalrank.objective import ObjectiveConfig, group_relative_loss
log_prob, rewards = torch.tensor([[-1.0, -3.0, -2.0]]), torch.tensor([[0.0, 2.0, 1.0]])
mask, weight = torch.ones(1, 3, dtype=torch.bool), torch.ones(1)
print(float(group_relative_loss(log_prob, rewards, mask, weight, ObjectiveConfig())))
print(float(group_relative_loss(log_prob, -rewards, mask, weight, ObjectiveConfig())))
"""


@pytest.mark.parametrize("before", [None, "/a/folder"])
def test_the_bad_release_turns_the_sign_in_processes_started_meanwhile_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setenv("PYTHONPATH", before) if before else monkeypatch.delenv("PYTHONPATH", raising=False)

    def losses() -> list[float]:
        said = subprocess.run([sys.executable, "-c", _LOSS], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        return [float(line) for line in said.stdout.split()]

    right = losses()
    with faults.bad_release(tmp_path):
        wrong = losses()
    assert right[0] != right[1]
    assert wrong == right[::-1]
    assert os.environ.get("PYTHONPATH") == before
    assert losses() == right


# ------------------------------------------------------------------------------------------------------------ traffic


def nobody_known(store: object, entity: str, keys: list[int]) -> pa.Table:
    """An online store that has no features."""
    wanted = schema.training_rows_schema(entity)
    columns = [pa.array(keys, pa.int64()), *(pa.nulls(len(keys), field.type) for field in list(wanted)[1:])]
    return pa.Table.from_arrays(columns, schema=wanted)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> traffic.Day:
    monkeypatch.setattr(traffic, "online_rows", nobody_known)
    world = replace(WORLD, requests_per_day=1000)
    champion = Champion(random_ranker(3), ModelVersion(name="goalrank-ranker", version="4", weights_sha256="0" * 64))
    store: Any = object()
    return traffic.serve(simulator.day_requests(world, 9), champion, ("1", random_ranker(4)), store)


def test_a_day_is_shared_out_as_stated(served: traffic.Day) -> None:
    own = simulator.day_requests(served.requests.world.config, 9)
    policies, counts = np.unique(served.requests.policy_R, return_counts=True)
    assert policies.tolist() == ["goalrank-ranker:4", "plackett_luce", "uniform"]
    ours_R = served.requests.policy_R == "goalrank-ranker:4"
    assert abs(ours_R.mean() - (1 - LOGGING_SHARE)) < 0.05
    np.testing.assert_array_equal(served.requests.slate_RL[~ours_R], own.slate_RL[~ours_R])
    np.testing.assert_array_equal(served.requests.propensity_RL[~ours_R], own.propensity_RL[~ours_R])
    assert all(len(set(slate)) == len(slate) for slate in served.requests.slate_RL.tolist())


def test_the_champions_propensities_are_those_of_what_was_shown(served: traffic.Day) -> None:
    """Greedy at the first place with at least 1 - EXPLORATION, else with EXPLORATION's share of the ranker's own."""
    store: Any = object()
    batches = list(traffic._batches(served.requests, store))
    greedy_RL = traffic._greedy(random_ranker(3), batches, schema.LIST_LENGTH)
    ours_R = served.requests.policy_R == "goalrank-ranker:4"
    slate_RL, propensity_RL = served.requests.slate_RL[ours_R], served.requests.propensity_RL[ours_R]
    assert ((propensity_RL > 0) & (propensity_RL <= 1)).all()
    greedy_R = slate_RL[:, 0] == greedy_RL[ours_R, 0]
    assert 1 - EXPLORATION <= greedy_R.mean() < 1
    assert (propensity_RL[greedy_R, 0] > 1 - EXPLORATION).all()
    assert (propensity_RL[~greedy_R, 0] < EXPLORATION).all()
    # Off the greedy list only the sampled branch is left: later items have the ranker's own probability.
    assert propensity_RL[~greedy_R, 1:].mean() > EXPLORATION / WORLD.candidates


def test_rewards_are_the_worlds_truth(served: traffic.Day) -> None:
    mean = {name: values.mean() for name, values in served.rewards.items()}
    assert mean["best"] >= max(mean["champion"], mean["frozen"], mean["retriever"])
    shown_R = simulator.expected_reward(served.requests.facts, served.requests.slate_RL[:, None])[:, 0]
    np.testing.assert_allclose(served.rewards["served"], shown_R)
    assert mean["champion"] != mean["frozen"]


def test_a_served_day_is_remembered(served: traffic.Day, tmp_path: Path) -> None:
    world = served.requests.world.config
    traffic.keep(served, tmp_path / f"{world.date_of(9)}.parquet")
    again = traffic.remembered(world, 9, tmp_path)
    for name in ("slate_RL", "propensity_RL", "policy_R"):
        np.testing.assert_array_equal(getattr(again, name), getattr(served.requests, name))
    np.testing.assert_array_equal(again.feedback.click, served.requests.feedback.click)
    other = traffic.remembered(world, 8, tmp_path)
    assert set(other.policy_R) <= {"plackett_luce", "uniform"}


# ------------------------------------------------------------------------------------------------------------ history


def test_history_and_picture(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = live(settings, StubbedNights())
    document = history(ledger, settings.workspace / "replay" / "days")
    assert json.loads(json.dumps(document)) == document
    assert document["counts"] == {"promoted": 0, "kept": 5, "refused": 2}
    assert [day["difference_so_far"]["sum"] for day in document["days"]] == [0.0] * NIGHTS, "nobody serves, nobody wins"
    picture = tmp_path / "curve.png"
    draw(document, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    print_history(document | {"history": "h", "curve": "c"}, Console(width=200))
    said = capsys.readouterr().out
    assert "refused (3)" in said and "[bad_data] " in said and "[delivered again]" in said
    assert "retraining against frozen +0.0000 a request" in said
    print_history(document | {"history": "h", "curve": "c"}, Console(width=60))
    table, _, reasons = capsys.readouterr().out.partition("\n\n")
    assert len(table.splitlines()) == 1 + len(document["runs"]), "a line a run, nothing folded"
    assert reasons.startswith("night ") and "[bad_data] " in reasons


def test_differences_are_paired_and_add_up(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    days = []
    for number in (1, 2):
        base = generator.normal(2, 1, 400)
        gain = generator.normal(0.1 * number, 0.2, 400)
        rewards = dict.fromkeys(("frozen", "retriever", "served", "best"), base) | {"champion": base + gain}
        pq.write_table(pa.table({"user_id": np.arange(400) % 50, **rewards}), tmp_path / f"2026-01-0{number}.parquet")
        days.append({"night": number, "date": f"2026-01-0{number}", "champion": "1"})
    ledger = Ledger(tmp_path / "replay.json", Plan(2, "tiny", 0, ""), {"version": "1", "model": ""}, [], days)
    first, second = history(ledger, tmp_path)["days"]
    assert first["difference"]["low"] < 0.1 < first["difference"]["high"]
    assert second["difference_so_far"]["sum"] == pytest.approx(
        400 * (first["difference"]["mean"] + second["difference"]["mean"])
    )
    assert 0 < second["difference_so_far"]["sum_low"] < second["difference_so_far"]["sum"]


def test_the_replays_world_is_a_world() -> None:
    assert replay_world(3).seed == 3
    assert replay_world(0).coefficients == simulator.Coefficients(), "no other world than everybody's"


def test_a_failed_night_is_no_try_again_when_it_is_a_bug() -> None:
    error = life._not_ended(3, {"exit_code": 1, "reason": "KeyError"}, Path("n"))
    assert isinstance(error, GoalRankError) and not isinstance(error, TryAgain)
