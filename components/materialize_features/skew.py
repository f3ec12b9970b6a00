"""Training-serving skew: what the online store answers about a sample of requests, against the offline store.

Offline rows come by the very path that training reads (Feast's point-in-time join), as of the midnight that is online;
online rows by the path that serving reads. Both stores were filled from the same files, so every value must be equal.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.feature_store import offline_rows, online_rows, views_of
from components.gate_limits import SKEW
from components.materialize_features.online import end_of
from components.step import Step
from goalrank.errors import DataRefused

if TYPE_CHECKING:
    from feast import FeatureStore

SAMPLED_REQUESTS = 20
"""Requests of the newest day whose user and candidates are compared: about a thousand entities."""

EXAMPLES = 3


@dataclass(frozen=True)
class Difference:
    """One feature of one entity that is not the same in both stores."""

    entity: str
    key: int
    view: str
    feature: str
    online: Any
    offline: Any

    def __str__(self) -> str:
        which = f"{self.view}:{self.feature} of {self.entity} {self.key}"
        return f"{which} is {self.online!r} online, {self.offline!r} offline"


def differences(store: FeatureStore, offline: dict[str, pa.Table]) -> list[Difference]:
    """Every feature whose online value is not the offline one.

    Args:
        store: from open_store or create_store.
        offline: 'user_id' and 'item_id' -> rows as offline_rows gives them.
    """
    found = []
    for entity, table in offline.items():
        keys = table[entity].to_pylist()
        online = online_rows(store, entity, keys)
        for view in views_of(entity):
            for field in view.features:
                pairs = zip(keys, online[field.name].to_pylist(), table[field.name].to_pylist(), strict=True)
                found += [
                    Difference(entity, key, view.name, field.name, now, then)
                    for key, now, then in pairs
                    if not _same(now, then)
                ]
    return found


def check_skew(store: FeatureStore, training_set: str | Path, date: str, step: Step) -> None:
    """Compare both stores on SAMPLED_REQUESTS requests of `date`; tells the step's figures what was compared.

    Raises:
        DataRefused: a feature differs; names the feature, the entity and both values of three, and how many differ. Or
            there was no request of `date` to compare them on: nothing compared is nothing known to be equal.
    """
    keys = _sampled(Path(training_set) / "examples.parquet", date)
    offline = {entity: offline_rows(store, entity, ids, end_of(date)) for entity, ids in keys.items()}
    found = differences(store, offline)
    compared = sum(table.num_rows * (table.num_columns - 2) for table in offline.values())
    step.figures["skew"] = {
        "users": len(keys["user_id"]),
        "items": len(keys["item_id"]),
        "compared": compared,
        "differing": len(found),
    }
    if not compared:
        raise DataRefused(
            f"training-serving skew: expected requests of {date} among the examples, to compare their features online "
            "and offline, found none, so nothing says that both stores agree. To mend: see why no request of that day "
            "has impressions of the same day (a delivery that was held up?), deliver them, and run the same date again "
            f"with --full-rebuild; or `goalrank day skip {date} --reason TEXT`"
        )
    if SKEW.beyond_critical(len(found)):
        features = Counter(f"{one.view}:{one.feature}" for one in found)
        entities = len({(one.entity, one.key) for one in found})
        told = ", ".join(f"{name} ({count})" for name, count in features.most_common(5))
        raise DataRefused(
            f"training-serving skew: expected every feature online as offline, found {len(found)} of {compared} values "
            f"of {entities} users and items otherwise: {told}; for example {'; '.join(map(str, _spread(found)))}. "
            "To mend: see that nobody else writes to the online store, and run the same date again; if it stays, "
            "delete the feature store's folder and run with --full-rebuild"
        )


def _sampled(examples: Path, date: str) -> dict[str, list[int]]:
    """Users and candidates of requests spread over the day."""
    table = pq.read_table(examples, columns=["request_id", "user_id", "candidates"], filters=[("dt", "=", date)])
    chosen = np.unique(np.linspace(0, table.num_rows - 1, min(SAMPLED_REQUESTS, table.num_rows)).astype(np.int64))
    table = table.take(pa.array(chosen))
    return {
        "user_id": sorted(pc.unique(table["user_id"]).to_pylist()),
        "item_id": sorted(pc.unique(pc.list_flatten(table["candidates"])).to_pylist()),
    }


def _spread(found: list[Difference]) -> list[Difference]:
    """Up to EXAMPLES differences, of different features where there are."""
    first: dict[str, Difference] = {}
    for one in found:
        first.setdefault(f"{one.view}:{one.feature}", one)
    chosen = list(first.values())[:EXAMPLES]
    return chosen + [one for one in found if one not in chosen][: EXAMPLES - len(chosen)]


def _same(online: Any, offline: Any) -> bool:
    """Equal; Feast keeps an empty list as no value, and NaN is itself here."""
    if online in (None, []) and offline in (None, []):
        return True
    if isinstance(online, float) and isinstance(offline, float) and math.isnan(online) and math.isnan(offline):
        return True
    return bool(online == offline)
