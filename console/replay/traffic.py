"""A day served: by the champion of that morning, and in its shadow by the frozen model and the retriever.

The champion reads the online store as the service does, so its features are those of the last night that materialised:
after a refused night they are a day older. A stated share of requests is ranked by the world's own logging policy, a
share of the champion's is sampled from it; the propensities logged are those of what was shown.

Shape legend: R requests, G policies, N candidates, L list length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from components.feature_store import online_rows
from components.serve_model.exploration import mixture_propensities
from console.replay.world import EXPLORATION, LOGGING_SHARE
from goalrank.dataset import RequestBatch, batch_from_rows
from goalrank.simulator import Requests, WorldConfig, best_lists, day_requests, expected_reward, served
from goalrank.simulator.world import FIRST_ITEM_ID, FIRST_USER_ID, stream

if TYPE_CHECKING:
    from feast import FeatureStore

    from components.serve_model.champion import Champion
    from goalrank.ranker import Ranker

BATCH = 256


@dataclass(frozen=True)
class Day:
    """What was shown on a day, and the true expected reward (a request's) of what each policy would have shown."""

    requests: Requests
    rewards: dict[str, np.ndarray]
    """champion, frozen, retriever, best (R,): greedy lists; served: what was shown, exploration and logging included"""


def serve(
    requests: Requests, champion: Champion | None, frozen: tuple[str, Ranker] | None, store: FeatureStore | None
) -> Day:
    """Rank a day's requests.

    Args:
        requests: as the world has them, ranked by its own logging policy.
        champion: who serves; None before the first promotion: the logging policy serves, the retriever stands in.
        frozen: version and model of the first night that promoted; None before.
        store: opened after the night, for the features; not needed without a champion.
    """
    config = requests.world.config
    length = config.list_length
    retriever_RL = np.argsort(-requests.score_RN, axis=1, kind="stable")[:, :length]
    lists = {"champion": retriever_RL, "frozen": retriever_RL, "retriever": retriever_RL}
    shown = requests
    if champion is not None and store is not None:
        batches = list(_batches(requests, store))
        greedy_RL, shown = _served_by(requests, champion, batches)
        lists["champion"] = greedy_RL
        if frozen is not None:
            same = frozen[0] == champion.version.version
            lists["frozen"] = greedy_RL if same else _greedy(frozen[1], batches, length)
    facts = requests.facts
    lists["served"] = shown.slate_RL
    reward_RG = expected_reward(facts, np.stack(list(lists.values()), axis=1))
    rewards = {name: reward_RG[:, column] for column, name in enumerate(lists)}
    return Day(shown, rewards | {"best": best_lists(facts, length)[1]})


def _batches(requests: Requests, store: FeatureStore) -> Iterator[tuple[slice, RequestBatch]]:
    """The day's requests with the features the online store has now, BATCH at a time."""
    users_U, user_R = np.unique(requests.user_R, return_inverse=True)
    items_I, flat_X = np.unique(requests.item_RN, return_inverse=True)
    item_RN = flat_X.reshape(requests.item_RN.shape)
    users = online_rows(store, "user_id", (users_U + FIRST_USER_ID).tolist())
    items = online_rows(store, "item_id", (items_I + FIRST_ITEM_ID).tolist())
    for begin in range(0, len(user_R), BATCH):
        rows = slice(begin, min(begin + BATCH, len(user_R)))
        scores_RN = requests.score_RN[rows].tolist()
        yield rows, batch_from_rows(users, items, user_R[rows].tolist(), item_RN[rows].tolist(), scores_RN)


@torch.inference_mode()
def _greedy(model: Ranker, batches: list[tuple[slice, RequestBatch]], length: int) -> np.ndarray:
    return np.concatenate([model.greedy(model.encode(batch), length).numpy() for _, batch in batches])


@torch.inference_mode()
def _served_by(
    requests: Requests, champion: Champion, batches: list[tuple[slice, RequestBatch]]
) -> tuple[np.ndarray, Requests]:
    """The champion's greedy lists (R, L), and the day as it was served."""
    config, day = requests.world.config, requests.world.day
    length, model = config.list_length, champion.model
    explored_R = stream(config, "replay_exploration", day).random(len(requests.user_R)) < EXPLORATION
    generator = torch.Generator().manual_seed(int(stream(config, "replay_lists", day).integers(2**62)))
    greedy_RL = np.empty(requests.slate_RL.shape, dtype=np.int64)
    slate_RL, steps_RL = np.empty_like(greedy_RL), np.empty(greedy_RL.shape)
    for rows, batch in batches:
        encoded = model.encode(batch)
        greedy_BL = model.greedy(encoded, length)
        sampled_BL = model.sample(encoded, 1, length, 1.0, generator)[:, 0]
        list_BL = torch.where(torch.from_numpy(explored_R[rows])[:, None], sampled_BL, greedy_BL)
        _, steps_BGL = model.log_prob(encoded, list_BL.unsqueeze(1))
        greedy_RL[rows], slate_RL[rows], steps_RL[rows] = greedy_BL, list_BL, steps_BGL[:, 0].double()
    propensity_RL = mixture_propensities(steps_RL, slate_RL == greedy_RL, EXPLORATION)
    logging_R = stream(config, "replay_shares", day).random(len(slate_RL)) < LOGGING_SHARE
    policy = f"{champion.version.name}:{champion.version.version}"
    return greedy_RL, served(
        requests,
        slate_RL=np.where(logging_R[:, None], requests.slate_RL, slate_RL),
        propensity_RL=np.where(logging_R[:, None], requests.propensity_RL, propensity_RL),
        policy_R=np.where(logging_R, requests.policy_R, policy),
    )


def keep(day: Day, path: Path) -> None:
    """Write a served day, whole or not at all: its late rows arrive tomorrow, its rewards make the curve."""
    shown = day.requests
    table = pa.table(
        {
            "request_id": shown.request_id_R,
            "user_id": shown.user_R + FIRST_USER_ID,
            "policy": shown.policy_R,
            "slate": pa.array(shown.slate_RL.tolist(), pa.list_(pa.int32())),
            "propensity": pa.array(shown.propensity_RL.tolist(), pa.list_(pa.float64())),
            **day.rewards,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, aside, compression="zstd")
    os.replace(aside, path)


def remembered(config: WorldConfig, day: int, folder: Path) -> Requests:
    """What happened on `day`: as it was served, where a file of `keep` says so, else under the logging policy."""
    path = folder / f"{config.date_of(day)}.parquet"
    requests = day_requests(config, day)
    if not path.exists():
        return requests
    table = pq.read_table(path)
    return served(
        requests,
        slate_RL=np.array(table["slate"].to_pylist()),
        propensity_RL=np.array(table["propensity"].to_pylist()),
        policy_R=np.array(table["policy"].to_pylist()),
    )
