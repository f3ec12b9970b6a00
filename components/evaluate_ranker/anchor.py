"""The anchor: the version that was champion a week ago, scored again tonight beside challenger and champion.

Each promotion is held against the champion of its day alone; a chain of mistaken ones, each within a night's noise,
would walk downhill unseen. The journal says who reigned when. A version rolled back from is no yardstick, so the line
of succession without it counts (components/promote_model/lineage.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from components import registry
from components.evaluate_ranker import models
from components.promote_model import journal
from components.promote_model.lineage import follow
from goalrank.errors import GoalRankError, ModelRefused, TryAgain
from goalrank.verdict import ANCHOR_DAYS, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from goalrank.ranker import Ranker


@dataclass
class Anchor:
    """The anchor and its ranker, or why there is none."""

    model: ModelVersion | None = None
    ranker: Ranker | None = None
    reason: str = ""


def find(
    client: MlflowClient, tracking_uri: str, journal_uri: str, champion: ModelVersion | None, date: str, folder: str
) -> Anchor:
    """The anchor of the night of `date`, downloaded and verified.

    Where the version wanted cannot be scored (deleted, damaged, trained on other features, or on the evaluation day),
    the nearest of its predecessors is taken, then the nearest of its successors. Where none can, there is no anchor
    and the reason says why of each: yesterday's champion still stands guard.

    Raises:
        TryAgain: MLflow is away.
        ModelRefused: the journal is damaged.
    """
    if champion is None:
        return Anchor(reason="there is no champion yet")
    if not journal_uri:
        return Anchor(reason="no journal was given")
    wanted = in_order(journal.read(journal_uri), champion.version, date)
    if not wanted:
        return Anchor(reason=f"version {champion.version} has been champion for all the journal knows, or for a week")
    tried = []
    for version in wanted:
        try:
            with registry.reaching(tracking_uri):
                registered = registry.registered(client, registry.RANKER, version)
                if registered is None:
                    raise ModelRefused(f"version {version} is not in the registry any more")
                registry.require_feature_set(registered)
                model = registry.identity(registered)
                directory = registry.fetch_model(client, model, folder)
            models.require_unseen(directory, f"version {version}", date)
            return Anchor(model, models.load_ranker(directory, model))
        except TryAgain:
            raise
        except GoalRankError as error:
            tried.append(str(error))
        except Exception as error:  # MLflow's own, when files of a version are gone: no reason to lose the night
            tried.append(f"version {version} cannot be downloaded ({type(error).__name__}: {error})")
    return Anchor(reason=f"no earlier champion can be scored tonight: {'; '.join(tried)}"[:1000])


def in_order(events: list[dict[str, Any]], champion: str, date: str) -> list[str]:
    """Versions that may be the anchor, the one wanted first; none where the champion itself has reigned for a week.

    Args:
        events: journal.read's.
        champion: the champion's version; the journal is wrong about it where aliases were moved by hand.
        date: the night, YYYY-MM-DD.
    """
    done = {event["id"] for event in events if event["event"] == "done"}
    since: dict[str, str] = {}
    for event in events:
        if event["event"] == "intent" and event["id"] in done:
            since |= {
                move["to"]: str(event.get("date") or "")
                for move in event["moves"]
                if move["name"] == registry.RANKER and move["to"] is not None
            }
    horizon = (calendar_date.fromisoformat(date) - timedelta(days=ANCHOR_DAYS)).isoformat()
    line = list(dict.fromkeys(follow(events).line))
    # "": champion since before the journal began, or moved by hand on no night's behalf.
    if champion in line and since.get(champion, "") <= horizon:
        return []
    line = line[: line.index(champion)] if champion in line else line
    place = max((at for at, version in enumerate(line) if since.get(version, "") <= horizon), default=0)
    return [*reversed(line[: place + 1]), *line[place + 1 :]]
