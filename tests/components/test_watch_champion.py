"""The watch on real parts: served logs in the contract, the promotions' journal, MLflow's aliases."""

import itertools
import json
import os
import shutil
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from typer.testing import CliRunner

from components import registry
from components.promote_model import journal
from components.serve_model.bodies import FeedbackBody, RankBody
from components.serve_model.holdback import RETRIEVER_POLICY, held_back
from components.serve_model.ranking import Ranked
from components.serve_model.served_log import ServedLog
from components.watch_champion.feedback import Split, Sums
from components.watch_champion.main import ALPHA, SETTLING, Look, decide, look, run
from components.watch_champion.tally import Tally
from console.main import app
from goalrank import schema, sequential
from goalrank.errors import DataRefused, ModelRefused, TryAgain, UsageError
from tests.components import served_feedback as made_up
from tests.components.promoted_workspace import COMMAND, PromotedWorkspace
from tests.components.untrained_models import NightInputs

HOLDBACK = 0.2
USERS = 2000
SPLIT = Split("2", "1", HOLDBACK)
POLICIES = SPLIT.policies


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    inputs = NightInputs(tmp_path_factory.mktemp("inputs"), requests=120)
    place = PromotedWorkspace(tmp_path_factory.mktemp("place") / "workspace", inputs).promoted(2)
    path = Path(place.journal_uri) / journal.FILE
    events = [json.loads(line) for line in path.read_text().splitlines()]
    then = (datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds")
    path.write_text("".join(json.dumps(event | {"at": then}) + "\n" for event in events))
    return place


@pytest.fixture
def place(made):
    """Version 2 promoted over version 1 two days ago, whatever a test made of it."""
    path = Path(made.journal_uri) / journal.FILE
    before = path.read_bytes()
    yield made
    path.write_bytes(before)
    client = registry.connect(made.tracking_uri)
    for name in (registry.RANKER, registry.REWARD):
        registry.point(client, name, registry.CHAMPION, "2")
        registry.point(client, name, registry.PREVIOUS, "1")


def promoted_at(place) -> datetime:
    return datetime.fromisoformat(journal.read(place.journal_uri)[-1]["at"])


def live(place, served, rates, batches=20, each=400, holdback=HOLDBACK, failing=0.0, seed=0, **watching):
    """Batches of feedback, and a look after each; all looks up to a decision."""
    rng, start, looks = np.random.default_rng(seed), promoted_at(place) + SETTLING, []
    for number in range(batches):
        at = start + timedelta(seconds=600 * number)
        batch = made_up.rows(rng, at, each, USERS, ("2", "1"), rates, holdback, f"b{number}", failing=failing)
        made_up.write(served, batch, f"b{number}")
        now = at + timedelta(seconds=600)
        looks.append(look(str(served), place.tracking_uri, place.journal_uri, HOLDBACK, now=now, **watching))
        if looks[-1].state == "rolled_back":
            break
    return looks


# --------------------------------------------------------------------------------------------------------- decisions


def test_a_bad_champion_is_rolled_back_by_itself_with_the_numbers(place, tmp_path):
    looks = live(place, tmp_path, rates=(0.12, 0.2))
    last = looks[-1]
    assert last.state == "rolled_back", last
    assert last.difference["high"] < 0 and last.rollback["to"] == "1"
    assert place.aliases() == [("1", None), ("1", None)]
    intent = journal.read(place.journal_uri)[-2]
    assert (intent["kind"], intent["by"]) == ("rollback", "watch")
    assert all(f"{last.difference[name]:+.4f}" in intent["reason"] for name in ("mean", "low", "high"))
    again = look(str(tmp_path), place.tracking_uri, place.journal_uri, HOLDBACK)
    assert (again.state, place.aliases()[0]) == ("nothing", ("1", None))


def test_an_equal_champion_stays_though_looked_at_after_every_batch(place, tmp_path):
    looks = live(place, tmp_path, rates=(0.2, 0.2))
    assert [one.state for one in looks[-10:]] == ["watching"] * 10
    assert place.aliases()[0] == ("2", "1")


def test_a_better_champion_stays(place, tmp_path):
    looks = live(place, tmp_path, rates=(0.3, 0.2))
    assert looks[-1].state == "watching" and looks[-1].difference["low"] > 0


@pytest.mark.parametrize("failing", [0.3, 0.8, 1.0])
def test_a_champion_that_fails_is_rolled_back_however_often_it_fails(place, tmp_path, failing):
    """It is as good as its predecessor where it answers; where it fails, its users get the retriever's order."""
    last = live(place, tmp_path, rates=(0.2, 0.2), batches=40, failing=failing)[-1]
    assert (last.state, last.unassigned_users) == ("rolled_back", 0), last
    assert last.users["predecessor"] / sum(last.users.values()) == pytest.approx(HOLDBACK, abs=0.03)
    assert 'goalrank_fallbacks_total{kind="model_failed"}' in last.reason
    assert place.aliases()[0] == ("1", None)


def test_a_champion_that_fails_but_costs_nothing_stays(place, tmp_path):
    """As good as the retriever's order is what its predecessor gave: no loss, hence no roll-back, and no alert."""
    looks = live(place, tmp_path, rates=(made_up.FAILED_RATE,) * 2, failing=0.8)
    assert {one.state for one in looks} == {"watching"}


def test_a_dry_run_decides_and_changes_nothing(place, tmp_path):
    looks = live(place, tmp_path, rates=(0.05, 0.2), dry_run=True, batches=8)
    assert looks[-1].state == "would_roll_back"
    assert place.aliases()[0] == ("2", "1")


def test_equal_champions_are_rolled_back_by_no_more_than_half_of_alpha():
    """Many made-up promotions, each looked at ten times while the same users come again."""
    rolled_back, repeats = 0, 200
    users, each = 600, 300
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        taste_U = rng.gamma(2.0, 0.5, users)
        back_U = rng.random(users) < 0.3
        user_R = rng.integers(0, users, 10 * each)
        reward_R = rng.poisson(taste_U[user_R]).astype(float)
        rows = pa.table(
            {
                "request_id": np.arange(len(user_R)),
                "user_id": user_R,
                "policy": np.where(back_U[user_R], *reversed(POLICIES)),
                "event_time": pa.array(np.arange(len(user_R)), schema.TIMESTAMP),
                "reward": reward_R,
            }
        )
        for batch in range(1, 11):
            seen = Look("watching", "", champion="2", predecessor="1")
            decide(seen, Sums.of(rows.slice(0, batch * each), Split("2", "1", 0.3)).feedback(), 0.3)
            assert seen.state != "alert"
            if seen.state == "rolled_back":
                rolled_back += 1
                break
    assert rolled_back <= stats.binom.ppf(0.999, repeats, ALPHA / 2), rolled_back


# ------------------------------------------------------------------------------------------------ nothing is decided


def test_a_broken_split_is_an_alert_and_no_decision(place, tmp_path):
    """The old version answers four times as many users as it should: some server has not taken the new one over."""
    looks = live(place, tmp_path, rates=(0.05, 0.2), batches=3, holdback=0.8)
    assert looks[-1].state == "alert" and "split is broken" in looks[-1].reason
    assert place.aliases()[0] == ("2", "1")
    with pytest.raises(DataRefused, match="split is broken"):
        run(str(tmp_path), place.tracking_uri, place.journal_uri, str(tmp_path / "run"), HOLDBACK)
    outcome = json.loads((tmp_path / "run/outcomes/watch_champion.json").read_text())
    assert (outcome["exit_code"], outcome["figures"]["state"]) == (3, "alert")


def test_too_few_users_wait(place, tmp_path):
    (seen,) = live(place, tmp_path, rates=(0.0, 0.5), batches=1, each=100)
    assert seen.state == "waiting" and seen.users["predecessor"] < sequential.MINIMUM_UNITS


def test_it_stops_after_its_time(place, tmp_path):
    later = promoted_at(place) + timedelta(days=2)
    one = look(str(tmp_path), place.tracking_uri, place.journal_uri, HOLDBACK, 3.0, now=later)
    assert one.state == "waiting"
    one = look(str(tmp_path), place.tracking_uri, place.journal_uri, HOLDBACK, 1.0, now=later)
    assert one.state == "over"


def test_feedback_from_after_its_time_is_not_looked_at(place, tmp_path):
    late = promoted_at(place) + timedelta(days=1, hours=1)
    batch = made_up.rows(np.random.default_rng(0), late, 3000, USERS, ("2", "1"), (0.0, 0.5), HOLDBACK, "late")
    made_up.write(tmp_path, batch, "late")
    seen = look(str(tmp_path), place.tracking_uri, place.journal_uri, HOLDBACK, 1.0, now=late + timedelta(days=1))
    assert (seen.state, seen.requests) == ("over", 0)


def test_without_a_holdback_or_a_promotion_there_is_nothing_to_watch(place, tmp_path):
    seen = look(str(tmp_path), place.tracking_uri, place.journal_uri, 0.0)
    assert (seen.state, "holdback" in seen.reason) == ("nothing", True)
    seen = look(str(tmp_path), place.tracking_uri, str(tmp_path / "journal"), HOLDBACK)
    assert (seen.state, "nothing was promoted" in seen.reason) == ("nothing", True)


@pytest.mark.parametrize(("holdback", "days"), [(-0.1, 1.0), (1.0, 1.0), (0.1, 0.0)])
def test_settings_out_of_range(tmp_path, holdback, days):
    with pytest.raises(UsageError, match="expected a share"):
        look(str(tmp_path), "sqlite:///x.db", str(tmp_path), holdback, days)


def test_a_champion_promoted_meanwhile_is_not_rolled_back_for_the_old_ones_loss(place, tmp_path):
    client = registry.connect(place.tracking_uri)
    registry.point(client, registry.RANKER, registry.CHAMPION, "1")
    with pytest.raises(TryAgain, match="by now"):
        live(place, tmp_path, rates=(0.05, 0.2))


def test_the_step_alone_ends_refused_when_it_rolled_back(place, tmp_path):
    live(place, tmp_path / "served", rates=(0.05, 0.2), dry_run=True, batches=8)
    with pytest.raises(ModelRefused, match="live feedback shows a loss"):
        served, step = str(tmp_path / "served"), str(tmp_path / "run")
        run(served, place.tracking_uri, place.journal_uri, step, HOLDBACK, dry_run=True)


# ----------------------------------------------------------------------------------------------------------- command


def test_the_command_looks_once_and_says_what_it_did(place):
    served = place.folder / "served"
    try:
        live(place, served, rates=(0.05, 0.2), dry_run=True, batches=8)
        result = CliRunner(env={"GOALRANK_HOLDBACK": str(HOLDBACK)}).invoke(
            app, ["watch", "--once", "--workspace", str(place.folder), "--json"]
        )
        document = json.loads(result.stdout)
        assert (result.exit_code, document["exit_code"], document["state"]) == (4, 4, "rolled_back")
        assert document["users"]["champion"] > document["users"]["predecessor"] > sequential.MINIMUM_UNITS
        assert place.aliases()[0] == ("1", None)
        result = CliRunner().invoke(app, ["watch", "--once", "--workspace", str(place.folder), "--json"])
        assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "nothing")
    finally:
        shutil.rmtree(served)


@pytest.mark.parametrize("flags", [["--once"], ["--once", "--dry-run"], []])
def test_a_mistyped_workspace_is_no_quiet_watch(tmp_path, flags):
    """There nothing was promoted yet, and never will be."""
    result = CliRunner().invoke(app, ["watch", *flags, "--workspace", str(tmp_path / "mistyped"), "--json"])
    assert (result.exit_code, json.loads(result.stdout)["kind"]) == (2, "usage")
    assert "holds no workspace" in json.loads(result.stdout)["reason"]
    assert not (tmp_path / "mistyped").exists()


def test_it_goes_on_looking_until_it_is_interrupted_whatever_it_meets(place):
    """A served log that cannot be read is said and looked at again, and the loss behind it found once it is mended."""
    served = place.folder / "served"
    try:
        live(place, served, rates=(0.05, 0.2), dry_run=True, batches=8)
        file = next(served.glob("requests/dt=*/*.parquet"))
        whole = file.read_bytes()
        file.write_bytes(b"PAR1 nonsense")
        watcher = subprocess.Popen(
            [*COMMAND, "watch", "--workspace", str(place.folder), "--every", "1", "--json"],
            env={**os.environ, "GOALRANK_HOLDBACK": str(HOLDBACK)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        states = []
        for line in watcher.stdout:
            states.append(json.loads(line)["state"])
            if states == ["alert"]:
                file.write_bytes(whole)
            if states[-1] == "nothing":  # the look after the roll-back
                watcher.send_signal(signal.SIGINT)
                break
        watcher.communicate(timeout=60)
        assert [state for state, _ in itertools.groupby(states)] == ["alert", "rolled_back", "nothing"]
        assert watcher.returncode == 0
        assert place.aliases()[0] == ("1", None)
    finally:
        shutil.rmtree(served)


# ---------------------------------------------------------------------------------------------------------- feedback


def test_values_are_by_user_by_first_version_and_by_the_contracts_weights(tmp_path):
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    held = next(user for user in itertools.count(100) if held_back(user, "2", "1", HOLDBACK))
    free = next(user for user in itertools.count(100) if not held_back(user, "2", "1", HOLDBACK))
    told = [  # user, policy, minute, [(click, like, watch_seconds)]
        (1, POLICIES[0], 0, [(1, 0, None)]),
        (1, POLICIES[0], 1, [(0, 0, None), (1, 1, 120.0)]),
        (2, POLICIES[1], 2, [(0, 0, None)]),
        (2, POLICIES[0], 3, [(1, 0, None)]),  # a switch: still version 1's user
        (3, f"{registry.RANKER}:0", 3, [(1, 0, None)]),  # a server that follows neither promotion
        (3, POLICIES[0], 5, [(0, 0, None)]),
        (3, RETRIEVER_POLICY, 6, [(1, 0, None)]),  # version 2's user, served the fallback
        (4, f"{registry.RANKER}:0", 7, [(0, 0, None)]),
        (5, POLICIES[0], -5, [(1, 0, None)]),  # before the time that counts
        (held, RETRIEVER_POLICY, 8, [(0, 0, None)]),  # no version could answer: whose it was to be
        (held, POLICIES[0], 9, [(1, 0, None)]),
        (free, RETRIEVER_POLICY, 8, [(0, 0, None)]),
    ]
    batch: dict = {"requests": [], "impressions": []}
    for number, (user, policy, minute, shown) in enumerate(told):
        request = {"request_id": f"r{number}", "user_id": user, "event_time": at + timedelta(minutes=minute)}
        batch["requests"].append(request | {"candidates": [1, 2], "candidate_scores": [0.0, 0.0], "policy": policy})
        for position, (click, like, watch) in enumerate(shown, start=1):
            row = {"request_id": f"r{number}", "position": position, "item_id": position, "propensity": None}
            batch["impressions"].append(row | {"click": click, "like": like, "watch_seconds": watch})
    batch["requests"].append(batch["requests"][0] | {"request_id": "no-impressions-yet", "user_id": 6})
    made_up.write(tmp_path, batch, "one")
    found = Tally(tmp_path, SPLIT, at, at + timedelta(hours=1)).feedback(at + timedelta(hours=1))
    weights = schema.RewardWeights()
    second = weights.click + weights.like + weights.watch_minute * 2
    third = weights.click * 2 / 3
    assert sorted(found.champion_T) == pytest.approx(sorted([0.0, third, (weights.click + second) / 2]))
    assert found.predecessor_C == pytest.approx([weights.click / 2, weights.click / 2])
    assert (found.requests, found.fallbacks, found.switched, found.unassigned) == (10, 3, 2, 1)
    assert found.seen_until == at + timedelta(minutes=9)


def test_what_the_server_writes_is_what_the_watch_reads(tmp_path):
    """The served log's own writer: a request of each version, feedback on one, read once the segment is written."""
    candidates = [{"item_id": 1, "score": 0.5}, {"item_id": 2, "score": 0.25}]
    begun, log = datetime.now(UTC) - timedelta(seconds=1), ServedLog(tmp_path)
    for user, policy in enumerate(POLICIES, start=1):
        body = RankBody.model_validate({"user_id": user, "candidates": candidates, "request_id": f"r{user}"})
        name, _, version = policy.partition(":")
        log.record(body, Ranked([2, 1], [1.0, 1.0], policy, name, version, None, False))
    log.feedback(FeedbackBody.model_validate({"request_id": "r1", "position": 1, "click": 1}))
    later = datetime.now(UTC) + timedelta(seconds=1)
    tally = Tally(tmp_path, SPLIT, begun, later)
    assert tally.feedback(later).requests == 0, "still waiting for feedback"
    log.close()
    found = tally.feedback(later)
    assert (found.champion_T.tolist(), found.predecessor_C.tolist()) == ([schema.RewardWeights().click], [0.0])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for table in schema.DAILY_TABLES:
        folder = tmp_path / table / "dt=2026-01-05"
        folder.mkdir(parents=True)
        (folder / "served-x.parquet").write_bytes(b"PAR1 nonsense")
    at = datetime(2026, 1, 5, tzinfo=UTC)
    with pytest.raises(DataRefused, match="served-x.parquet"):
        Tally(tmp_path, SPLIT, at, at + timedelta(days=1)).feedback(at)
