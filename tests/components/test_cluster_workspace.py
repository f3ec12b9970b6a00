"""The cluster's nights leave what works on a workspace needs: cards, by the first step and the last."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import night_card
from components.promote_model import history
from components.publish_report.main import run as publish
from components.step import Step
from components.train_ranker import train_job
from console import erasure, housekeeping, watching
from console.collecting import collect
from console.settings import Settings
from console.workspace import Workspace
from goalrank.errors import TryAgain, UsageError
from pipelines.cluster import SIZES

DATE = "2026-01-07"


class Volume:
    """The shared volume, and nights on it as the steps of a cluster leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs = folder, folder / "logs"

    def begin(self, name: str = "2026-01-07/0123456789abcdef", date: str = DATE, **changed: Any) -> Path:
        """What check_logs does first."""
        night = self.folder / "nights" / name
        given = {"workspace_uri": str(self.folder), "run_uri": str(night), "date": date, "logs_uri": str(self.logs)}
        night_card.begin(**given | changed)
        with Step("check_logs", str(night)):
            pass
        return night

    def end(self, night: Path, promote: bool = False) -> None:
        """What the last steps do."""
        with Step("gate_promotion", str(night)) as step:
            step.figures, step.reason = {"promote": promote}, "not better"
        publish(str(night), DATE, "SUCCEEDED")

    def settings(self) -> Settings:
        return Settings.load(workspace=self.folder, logs_uri=str(self.logs))

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder)


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    for name in [name for name in os.environ if name.startswith("GOALRANK_")]:
        monkeypatch.delenv(name)
    return Volume(tmp_path / "workspace")


def test_a_night_leaves_its_card(volume: Volume) -> None:
    night = volume.begin()
    assert volume.workspace.card() == {
        "format": night_card.FORMAT,
        "folder": str(volume.folder),
        "logs": str(volume.logs),
    }
    (running,) = volume.workspace.nights()
    assert (running.date, running.verdict, running.kept_by_steps) == (DATE, "running", True)
    volume.end(night)
    (ended,) = volume.workspace.nights()
    assert (ended.verdict, volume.workspace.last_good_date()) == ("kept", DATE)
    card = json.loads((night / "night.json").read_text())
    assert (card["exit_code"], card["reason"]) == (0, "not better") and card["ended_at"] >= card["started_at"]
    (told,) = history.read(volume.folder / "nights", str(volume.folder / "journal"))
    assert (told.date, told.what, told.run) == (DATE, "kept", "2026-01-07/0123456789abcdef")


def test_nights_are_in_the_order_of_their_dates_whatever_their_folders_are_called(volume: Volume) -> None:
    for name, date in (("scheduled/9f", "2026-01-08"), ("2026-01-06/ab", "2026-01-06"), ("scheduled/0a", "2026-01-07")):
        volume.end(volume.begin(name, date))
    assert [night.date for night in volume.workspace.nights()] == ["2026-01-06", "2026-01-07", "2026-01-08"]
    told = history.read(volume.folder / "nights", str(volume.folder / "journal"))
    assert {entry.date for entry in told} == {"2026-01-06", "2026-01-07", "2026-01-08"}


def test_on_one_machine_the_console_alone_writes_cards(volume: Volume) -> None:
    night = volume.begin(workspace_uri="")
    assert not (volume.folder / "workspace.json").exists() and not (night / "night.json").exists()
    (night / "night.json").write_text('{"verdict": "running"}')
    volume.end(night)
    assert json.loads((night / "night.json").read_text()) == {"verdict": "running"}


def test_the_commands_find_a_workspace(volume: Volume) -> None:
    """erase-user, clean, collect and watch refused here: nobody had written a card."""
    with pytest.raises(UsageError, match="holds no workspace"):
        erasure.erase_user(volume.settings(), 1, dry_run=True)
    volume.end(volume.begin())
    served = volume.folder / "served" / "requests" / f"dt={DATE}"
    served.mkdir(parents=True)
    rows = {"request_id": ["r1"], "user_id": [7], "event_time": [datetime(2026, 1, 7, tzinfo=UTC)]}
    pq.write_table(pa.table(rows), served / "served-0.parquet")
    with volume.workspace.one_at_a_time():
        done = collect(volume.workspace, volume.workspace.logs(), now=datetime(2026, 1, 9, 1, tzinfo=UTC))
    assert done["collected"] == {DATE: "2026-01-08"}, "the night has read the day already"
    assert erasure.erase_user(volume.settings(), 7, dry_run=True)["exit_code"] == 0
    assert housekeeping.clean(volume.settings(), 14, 30, dry_run=True)["exit_code"] == 0
    assert watching._look(volume.settings(), dry_run=True).champion is None


def test_what_a_train_job_left_is_collected(volume: Volume) -> None:
    """Copies of a night's inputs, where its job failed for good."""
    dates = [f"2026-01-0{day}" for day in range(1, 5)]
    for date in dates:
        night = volume.begin(f"{date}/0123456789abcdef", date)
        (night / train_job.FOLDER / "0a1b").mkdir(parents=True)
        volume.end(night)
    assert housekeeping.clean(volume.settings(), 2, 30, dry_run=False)["exit_code"] == 0
    left = [date for date in dates if any(volume.folder.glob(f"nights/{date}/*/{train_job.FOLDER}"))]
    assert left == dates[-2:]


def test_while_a_night_runs_on_the_cluster_nobody_works_on_the_workspace(volume: Volume) -> None:
    night = volume.begin()
    with pytest.raises(TryAgain, match=f"the night of {DATE} is under way on the cluster"):
        housekeeping.clean(volume.settings(), 14, 30, dry_run=True)
    assert max(size.hours for size in SIZES.values()) == night_card.LONGEST_HOURS
    gone = time.time() - 3600 * night_card.LONGEST_HOURS - 60
    card = json.loads((night / "night.json").read_text())
    (night / "night.json").write_text(json.dumps(card | {"started_at": gone}))
    with pytest.raises(TryAgain, match="under way"), volume.workspace.one_at_a_time():
        pass  # it is old, and still says something
    silent_since(night, gone)
    with volume.workspace.one_at_a_time():
        pass  # ended by hand, with nobody to say so


def silent_since(night: Path, moment: float) -> None:
    """Nothing was heard of the night since."""
    card = json.loads((night / "night.json").read_text())
    (night / "night.json").write_text(json.dumps(card | {"started_at": moment}))
    for told in (night / "progress.jsonl", *(night / "outcomes").iterdir()):
        os.utime(told, (moment, moment))


def test_two_nights_at_once_are_refused_the_second(volume: Volume) -> None:
    night = volume.begin()
    with pytest.raises(TryAgain, match=f"the night of {DATE} is under way on the cluster .*0123456789abcdef"):
        volume.begin("2026-01-08/ab", "2026-01-08")
    assert not (volume.folder / "nights" / "2026-01-08" / "ab" / "night.json").exists()
    assert volume.begin() == night, "tried or submitted again, it goes on in its folder"
    volume.end(night)
    volume.end(volume.begin("2026-01-08/ab", "2026-01-08"))


@pytest.mark.parametrize("heard", ["nothing", "progress.jsonl", "outcomes/check_logs.json"])
def test_a_night_whose_pods_are_gone_does_not_block_for_ever(volume: Volume, heard: str) -> None:
    """Evicted with nobody to end its card: gone once none of its steps has said anything for long enough."""
    night = volume.begin()
    silent_since(night, time.time() - 3600 * night_card.LONGEST_HOURS - 60)
    if heard == "nothing":
        volume.begin("2026-01-08/ab", "2026-01-08")
        return
    os.utime(night / heard)
    with pytest.raises(TryAgain, match="under way"):
        volume.begin("2026-01-08/ab", "2026-01-08")


def test_a_night_of_one_machine_or_a_damaged_card_blocks_none_of_the_cluster(volume: Volume) -> None:
    for name, card in (("1", '{"verdict": "running"}'), ("2", "{"), ("3", "[]")):
        (volume.folder / "nights" / DATE / name).mkdir(parents=True)
        (volume.folder / "nights" / DATE / name / "night.json").write_text(card)
    volume.begin()


def test_while_somebody_works_on_the_workspace_no_night_begins(volume: Volume) -> None:
    volume.end(volume.begin())
    with volume.workspace.one_at_a_time(), pytest.raises(TryAgain, match="erase-user and collect"):
        volume.begin("2026-01-08/ab", "2026-01-08")


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"logs": "/elsewhere"}, "/elsewhere"), ({"format": 1}, "format 1"), ({"folder": "/x"}, "/x")],
)
def test_another_workspace_than_the_card_says(volume: Volume, changed: dict[str, Any], said: str) -> None:
    volume.end(volume.begin())
    card = json.loads((volume.folder / "workspace.json").read_text())
    (volume.folder / "workspace.json").write_text(json.dumps(card | changed))
    with pytest.raises(UsageError, match=f"workspace.json says .*{said}.*expected"):
        volume.begin()
