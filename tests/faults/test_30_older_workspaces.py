"""A workspace of an older release is refused with the way to migrate, and migrated; what is collected follows a rule
that takes nothing that is needed, kills in between included; a user can be erased from all of it."""

from __future__ import annotations

import fcntl
import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components import registry
from components.check_features import passed
from components.check_features.main import run as check_features
from components.extract_features import erasures
from components.extract_features.snapshots import Snapshot
from components.feature_store import online_rows, open_store
from components.publish_report.main import run as publish_report
from components.serve_model.journal import SUFFIX, Segment
from components.serve_model.served_log import JOURNAL
from console.housekeeping import KEEP_NIGHTS
from console.housekeeping.files import HEAVY
from console.workspace import FORMAT
from goalrank import schema
from goalrank.errors import EXIT_DONE, EXIT_MODEL_REFUSED, EXIT_TRY_AGAIN, EXIT_USAGE
from tests.components.test_check_features import DAYS as FEATURE_DAYS
from tests.components.test_check_features import write_snapshot
from tests.faults.conftest import Seen
from tests.faults.nights import Nights, answer, goalrank
from tests.faults.old_workspace import DAYS, STAYS, OldWorkspace, build, day
from tests.faults.registry_on_disk import drop_tag, set_tag, tags

ROOT = Path(__file__).resolve().parents[2]
SEED = 30
KILLS = 4


# ---------------------------------------------------------------------------------------------------------- collecting


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldWorkspace:
    return build(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def kept_aside(old: OldWorkspace) -> Path:
    aside = old.folder.with_name("aside")
    shutil.copytree(old.folder, aside)
    return aside


@pytest.fixture
def forty_days(old: OldWorkspace, kept_aside: Path) -> Iterator[OldWorkspace]:
    """The workspace as it was made."""
    shutil.rmtree(old.folder)
    shutil.copytree(kept_aside, old.folder)
    yield old


def clean(place: OldWorkspace, *flags: str) -> dict[str, Any]:
    done = place.goalrank("clean", "--json", *flags)
    assert done.returncode == EXIT_DONE, done.stderr[-2000:]
    return answer(done.stdout)


def test_what_is_needed_stays(forty_days: OldWorkspace, seen: Seen) -> None:
    before = forty_days.contents()
    planned = clean(forty_days, "--dry-run")
    assert forty_days.contents() == before, "a dry run changes nothing"
    disk = sum(file.stat().st_size for file in forty_days.folder.rglob("*") if file.is_file())
    done = clean(forty_days)
    assert done["taken"] == planned["taken"] and not done["notes"]
    after = forty_days.contents()
    assert after["versions"] == dict.fromkeys((registry.RANKER, registry.REWARD), STAYS)
    assert set(done["kept_versions"][registry.RANKER]) == set(STAYS)
    assert after["aliases"] == before["aliases"] == [("5", "4"), ("5", "4")]
    assert after["weights"] == len(STAYS) * 3, "ranker, reward model and judge of each kept version, no file more"
    recent = [day(ago) for ago in range(KEEP_NIGHTS - 1, -1, -1)]
    assert after["manifests"] == [day(21), day(20), *recent], "recent ones, and two that passed for drift"
    assert after["nights"] == before["nights"], "every night keeps its record"
    assert after["marks"] == [f"{ago:016x}" for ago in (20, 21)]
    assert after["offline"] == [f"{ago:016x}" for ago in (0, 1)], "what is online, and what may be"
    assert all(path.split("/")[1] >= recent[0] or "/7/" in path for path in after["heavy"])
    rolled = forty_days.goalrank("rollback", "--reason", "x", "--to", "2", "--dry-run", "--json")
    assert (rolled.returncode, answer(rolled.stdout)["to"]) == (EXIT_DONE, "2"), rolled.stderr[-500:]
    gone = disk - sum(file.stat().st_size for file in forty_days.folder.rglob("*") if file.is_file())
    assert gone >= done["bytes"] * 0.9
    again = clean(forty_days)
    assert again["taken"] == []
    seen(
        f"goalrank clean over {DAYS + 1} nights, 7 versions, {len(before['manifests'])} snapshots",
        f"{len(done['taken'])} things, {done['bytes']:,} bytes collected; champion, previous, challenger, the champion "
        "of 20 days ago, the drift snapshot and what is online stay; a second time takes nothing",
    )


def test_the_night_started_last_can_be_resumed_however_old(forty_days: OldWorkspace, seen: Seen) -> None:
    artifact = forty_days.interrupted_again(30)
    clean(forty_days, "--keep-nights", "2")
    resumed = Snapshot.load(artifact)
    assert resumed.problem() == "", "the next step reads every row of it"
    assert Snapshot.read(resumed.root, day(30)).manifest == resumed.manifest
    against = passed.newest_before(resumed.root, day(30))
    assert against is not None and against.date == day(31), "its drift is judged as it was"
    assert forty_days.contents()["manifests"] == [day(ago) for ago in (31, 30, 21, 20, 1, 0)]
    assert clean(forty_days, "--keep-nights", "2")["taken"] == []
    seen("a night of 30 days ago, run again and interrupted", "its snapshot stays whole, and what it is held against")


def test_a_long_reign_and_an_unfinished_move(forty_days: OldWorkspace) -> None:
    """Nobody was promoted for a year: aliases alone hold champion and previous. And a move that a crash cut in half."""
    path = forty_days.folder / "journal/promotions.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        event |= {"at": "2025-01-01T00:00:00+00:00", "date": "2025-01-01"}
    for version in ("2", "4", "5"):
        for name in (registry.RANKER, registry.REWARD):
            set_tag(forty_days.folder / "mlflow/mlflow.db", name, version, "date", "2025-01-01")
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    kept = clean(forty_days, "--dry-run")["kept_versions"][registry.RANKER]
    assert {version: kept.get(version) for version in ("2", "4", "5")} == {
        "2": None,
        "4": "alias previous",
        "5": "alias champion",
    }
    unfinished = next(event for event in reversed(events) if event["event"] == "intent") | {"id": 99}
    unfinished["moves"] = [move | {"to": "3"} for move in unfinished["moves"]]
    path.write_text(path.read_text() + json.dumps(unfinished) + "\n")
    kept = clean(forty_days, "--dry-run")["kept_versions"][registry.RANKER]
    assert kept["3"] == "an unfinished move of the journal"


def test_killed_while_collecting(forty_days: OldWorkspace, seen: Seen) -> None:
    chance, killed = random.Random(SEED), 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.faults.killed_command", str(chance.randrange(1, 25)), "clean"]
        ended = subprocess.run([*command, "--workspace", str(forty_days.folder)], cwd=ROOT, capture_output=True)
        killed += ended.returncode == -signal.SIGKILL
        assert forty_days.contents()["aliases"] == [("5", "4"), ("5", "4")]
    assert killed == KILLS
    clean(forty_days)
    after = forty_days.contents()
    assert after["versions"] == dict.fromkeys((registry.RANKER, registry.REWARD), STAYS)
    assert after["weights"] == len(STAYS) * 3 and not after["left behind"]
    assert after["manifests"] == [day(21), day(20), *[day(ago) for ago in range(KEEP_NIGHTS - 1, -1, -1)]]
    assert clean(forty_days)["taken"] == []
    seen(f"kill -9 at {killed} seeded removals, then once more", "what stays and what went as without the kills")


@pytest.mark.parametrize("lock", ["lock", "snapshots/.lock", "journal/lock"])
def test_nothing_is_collected_beside_another_writer(forty_days: OldWorkspace, lock: str) -> None:
    before = forty_days.contents()
    path = forty_days.folder / lock
    with open(path, "a", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = forty_days.goalrank("clean", "--json")
    assert done.returncode == EXIT_TRY_AGAIN, done.stdout
    assert forty_days.contents() == before


def test_what_cannot_be_read_is_kept(forty_days: OldWorkspace) -> None:
    before = forty_days.contents()
    (forty_days.folder / "snapshots/manifests" / f"{day(30)}.json").write_text("{")
    done = clean(forty_days)
    assert "no snapshot was collected" in done["notes"][0]
    assert forty_days.contents()["rows"] == before["rows"]
    (forty_days.folder / "journal/promotions.jsonl").write_text("damaged\n")
    assert forty_days.goalrank("clean", "--json").returncode == EXIT_MODEL_REFUSED


# ----------------------------------------------------------------------------------------------------------- migration


def downgrade(nights: Nights) -> None:
    """The workspace as the release before this one left it: no feature sets, nested lines in the service's journal."""
    card = nights.workspace / "workspace.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"format": 1}))
    for name in (registry.RANKER, registry.REWARD):
        drop_tag(nights.database, name, "1", registry.FEATURE_SET)
    request = {"request_id": "r-1", "user_id": 1, "event_time": 1_767_600_000_000_000, "policy": "goalrank-ranker:1"}
    request |= {"candidates": [1, 2, 3], "candidate_scores": [0.3, 0.2, 0.1]}
    shown = [
        {"request_id": "r-1", "position": place, "item_id": item, "propensity": 0.5, "click": 0, "like": 0}
        for place, item in enumerate((3, 1), start=1)
    ]
    lines = [{"served": {"request": request, "impressions": shown}}]
    lines.append({"feedback": {"request_id": "r-1", "position": 2, "click": 1, "like": 0, "watch_seconds": 4.5}})
    folder = nights.workspace / "served" / JOURNAL
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"served": {"requ'
    (folder / f"1-a{SUFFIX}").write_text(text)


def test_an_older_workspace(nights: Nights, seen: Seen) -> None:
    place = ["--workspace", str(nights.workspace)]
    downgrade(nights)
    for command in (["nightly"], ["resume"], ["serve"], ["rank", "--example"], ["clean"], ["erase-user", "5"]):
        refused = goalrank(*command, *place)
        assert refused.returncode == EXIT_USAGE, (command, refused.stderr[-500:])
        assert f"has format 1, an older release's; this one reads {FORMAT}. Run `goalrank migrate" in refused.stderr
    planned = answer(goalrank("migrate", *place, "--dry-run", "--json").stdout)
    assert json.loads((nights.workspace / "workspace.json").read_text())["format"] == 1
    done = answer(goalrank("migrate", *place, "--json").stdout)
    assert done["steps"] == planned["steps"] and (done["found"], done["format"]) == (1, FORMAT)
    for name in (registry.RANKER, registry.REWARD):
        assert tags(nights.database, name, "1")[registry.FEATURE_SET] == schema.feature_set()
    (path,) = (nights.workspace / "served" / JOURNAL).glob(f"*{SUFFIX}")
    segment = Segment.adopt(path, 0.0)
    assert segment is not None
    tables = segment.tables()
    segment.release()
    assert tables["requests"]["request_id"].to_pylist() == ["r-1"]
    assert tables["impressions"].select(["item_id", "click", "propensity"]).to_pylist() == [
        {"item_id": 3, "click": 0, "propensity": 0.5},
        {"item_id": 1, "click": 1, "propensity": 0.5},
    ]
    ranked = goalrank("rank", "--example", *place)
    assert ranked.returncode == EXIT_DONE, ranked.stderr[-500:]
    assert answer(goalrank("migrate", *place, "--json").stdout)["steps"] == []
    seen(
        "a workspace of format 1: six commands, then goalrank migrate",
        f"each refused with exit 2 and the command to type; {len(done['steps'])} steps, the champion answers again",
    )


def test_a_version_without_this_releases_tags(nights: Nights, seen: Seen) -> None:
    drop_tag(nights.database, registry.RANKER, "1", registry.FEATURE_SET)
    refused = goalrank("rank", "--example", "--workspace", str(nights.workspace))
    assert refused.returncode == EXIT_MODEL_REFUSED
    assert "has no tag feature_set" in refused.stderr and "goalrank migrate" in refused.stderr
    seen("a champion without the tag of its feature set", f"exit {refused.returncode}, the way named")


def test_a_newer_workspace(nights: Nights) -> None:
    card = nights.workspace / "workspace.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"format": FORMAT + 1}))
    for command in (["nightly"], ["migrate"]):
        refused = goalrank(*command, "--workspace", str(nights.workspace))
        assert refused.returncode == EXIT_USAGE
        assert "a newer release wrote it" in refused.stderr


# ------------------------------------------------------------------------------------------------------------- erasing


def user_and_requests(logs: Path, told: Sequence[Path] = ()) -> tuple[int, set[str]]:
    """The user with most requests, and their ids; nobody whose id is by chance a number in the texts `told`."""
    table = pq.read_table(logs / "requests")
    spoken = b" ".join(path.read_bytes() for path in told)
    counts = table.group_by("user_id").aggregate([("request_id", "list")]).to_pylist()
    counts = [row for row in counts if not bare(row["user_id"]).search(spoken)]
    most = max(counts, key=lambda row: len(row["request_id_list"]))
    return most["user_id"], set(most["request_id_list"])


def serve_to(nights: Nights, user: int) -> Path:
    """A service that was killed: one written segment and one that is a journal still; returns the journal's."""
    folder = nights.workspace / "served"
    (folder / JOURNAL).mkdir(parents=True)
    lines = [
        {"request_id": f"served-{who}", "user_id": who, "event_time": 1_767_600_000_000_000, "policy": "x"}
        | {"candidates": [1, 2], "candidate_scores": [0.2, 0.1], "items": [1, 2], "propensities": None}
        for who in (user, user + 1)
    ]
    lines.append({"feedback_on": f"served-{user}", "position": 1, "click": 1, "like": 0, "watch_seconds": None})
    path = folder / JOURNAL / f"1-b{SUFFIX}"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    segment = Segment.adopt(path, 0.0)
    assert segment is not None
    for table, rows in segment.tables().items():
        (folder / table / "dt=2026-01-05").mkdir(parents=True)
        pq.write_table(rows, folder / table / "dt=2026-01-05" / "served-1-a.parquet")
    segment.release()
    return path


def bare(user: int) -> re.Pattern[bytes]:
    """The user's id as a number of its own, whatever stands around it."""
    return re.compile(rb"(?<!\d)%d(?!\d)" % user)


def texts(workspace: Path) -> list[Path]:
    """What a night keeps for good."""
    files = [path for path in workspace.glob("nights/*/*/**/*") if path.is_file()]
    return [path for path in files if path.relative_to(workspace).parts[3] not in HEAVY]


def call_unknown(night: Path, user: int, folder: Path) -> set[Path]:
    """Let check_features warn, in the night's own outcome and report, of users that nobody announced, this one among
    them; the texts that then quote the user."""

    def strangers(tables: dict[str, list[dict[str, Any]]]) -> None:
        tables["user_profile"] = [row for row in tables["user_profile"] if row["user_id"] != user]
        for number, row in enumerate(tables["examples"]):
            row["user_id"] = (10**9, user, 10**9 + user)[number % 3]

    snapshot = write_snapshot(folder, FEATURE_DAYS[:1], strangers)
    check_features(snapshot, str(folder), data_docs=str(folder / "docs"), run_uri=str(night))
    publish_report(str(night), night.parent.name)
    return {night / name for name in ("outcomes/check_features.json", "report.json", "report.html")}


def traces(folder: Path, user: int, requests: set[str]) -> list[str]:
    """Files below a folder that still hold rows of the user, or name one of the user's requests; of a night's texts
    those too in which the user's id stands as a number."""
    found = []
    spoken = {path for path in texts(folder) if bare(user).search(path.read_bytes())}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        if path.suffix == ".parquet":
            columns = set(pq.read_schema(path).names) & {"user_id", "request_id"}
            rows = pq.read_table(path, columns=sorted(columns), partitioning=None).to_pylist() if columns else []
            if any(row.get("user_id") == user or row.get("request_id") in requests for row in rows):
                found.append(str(path))
        else:
            content = path.read_bytes()
            if path in spoken or any(request.encode() in content for request in requests):
                found.append(str(path))
    return found


def test_a_user_is_erased(nights: Nights, seen: Seen, tmp_path: Path) -> None:
    place = ["--workspace", str(nights.workspace), "--json"]
    user, requests = user_and_requests(nights.workspace / "logs", texts(nights.workspace))
    requests.add(f"served-{user}")
    quoting = call_unknown(nights.workspace / "nights" / nights.first["date"] / "1", user, tmp_path / "strangers")
    assert quoting <= {path for path in texts(nights.workspace) if bare(user).search(path.read_bytes())}
    candidates = pq.read_table(nights.workspace / "logs/requests")["candidates"][0].as_py()
    journal = serve_to(nights, user)
    held = len(traces(nights.workspace, user, requests))
    database = nights.workspace / "feast/online.db"
    planned = answer(goalrank("erase-user", str(user), "--dry-run", *place).stdout)
    assert len(traces(nights.workspace, user, requests)) == held, "a dry run changes nothing"
    assert not (nights.workspace / "snapshots" / erasures.FILE).exists()

    killed = [sys.executable, "-m", "tests.faults.killed_command", "12", "erase-user", str(user), *place]
    assert subprocess.run(killed, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    with open(journal, "rb") as running:  # a service that lives holds its journal
        fcntl.flock(running, fcntl.LOCK_EX)
        waits = goalrank("erase-user", str(user), *place)
        assert waits.returncode == EXIT_TRY_AGAIN and "stop it" in answer(waits.stdout)["reason"]
    done = answer(goalrank("erase-user", str(user), *place).stdout)
    assert done["exit_code"] == EXIT_DONE and done["to_rewrite"] == []

    assert traces(nights.workspace, user, requests) == []
    assert erasures.read(nights.workspace / "snapshots") == [user]
    rows = online_rows(open_store(str(nights.workspace / "feast")), "user_id", [user, user + 1])
    assert rows["clicks"].to_pylist()[0] is None and rows["history_items"].to_pylist()[0] is None
    key = user.to_bytes(8, "little")  # what a serialised entity key ends with
    with sqlite3.connect(database) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%user_%'"
        tables = [name for (name,) in connection.execute(query)]
        keys = [row[0] for table in tables for row in connection.execute(f'SELECT entity_key FROM "{table}"')]
    assert keys and not [one for one in keys if bytes(one).endswith(key)]
    assert f"served-{user + 1}" in journal.read_text(), "others' lines stay"
    asked = {"user_id": user, "candidates": [{"item_id": item, "score": 1 / item} for item in candidates]}
    ranked = answer(goalrank("rank", json.dumps(asked), "--workspace", str(nights.workspace)).stdout)
    assert ranked["fallback"] == "unknown_user"
    again = answer(goalrank("erase-user", str(user), *place).stdout)
    assert (again["rows"], again["nights"]) == ({}, [])
    seen(
        f"goalrank erase-user {user} ({len(requests)} requests, {held} files; killed once, held up once)",
        f"{sum(planned['rows'].values())} rows out of {len(planned['rows'])} kinds of file, no trace in any file of "
        "the workspace, the online store has no such key, the champion answers by its fallback",
    )


def test_external_logs_are_named_not_rewritten(nights: Nights, tmp_path: Path) -> None:
    """Logs that are not the workspace's own: the files are named with the rows they hold, and extraction looks away."""
    logs = tmp_path / "logs"
    shutil.move(nights.workspace / "logs", logs)
    card = nights.workspace / "workspace.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"logs": str(logs)}))
    user, requests = user_and_requests(logs, texts(nights.workspace))
    before = {path: path.read_bytes() for path in logs.rglob("*.parquet")}
    done = answer(goalrank("erase-user", str(user), "--workspace", str(nights.workspace), "--json").stdout)
    assert {path: path.read_bytes() for path in logs.rglob("*.parquet")} == before
    named = {entry["file"]: entry["rows"] for entry in done["to_rewrite"]}
    assert set(named) == set(traces(logs, user, requests)) and sum(named.values()) > len(requests)
    assert traces(nights.workspace, user, requests) == []
