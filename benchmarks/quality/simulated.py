"""The simulated world as a problem of the study, and its truth.

Features are the night's own. True figures of a list for a request, all exact or drawn with the same numbers for every
method:

    reward   r*(l | u), the exact expectation
    h@6 ...  a positive is a candidate that the user would engage with (click) were it shown alone; it is hit where the
             user would engage with it at the place the list gives it. Whether a user would is one uniform number for
             each (request, candidate), held against the exact probability, so lists are compared on the same users.

Shapes: R requests, N candidates, L positions, K the cut-off.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.features import AS_A_NIGHT, Logs, training_tables, windows
from benchmarks.quality.problem import TEST, TRAIN, VALIDATION, Figures, Problem, spread_sample, write_problem
from benchmarks.quality.settings import Scale
from goalrank import metrics
from goalrank.dataset import TrainingSet
from goalrank.schema import LIST_LENGTH
from goalrank.simulator import (
    CandidateFacts,
    WorldConfig,
    candidate_facts,
    expected_feedback,
    expected_reward,
    load_world,
    sample_feedback,
    true_best,
    true_single_item_order,
    write_days,
)
from goalrank.simulator.logs import WORLD_FILE

KINDS = ("retriever",)
FIRST_TRAINED_DAY = 2
"""Before it nothing is known of users and items; those days make histories only."""
_SAMPLE_SEED, _USERS_SEED, _LISTS_SEED = 17, 29, 31


class Simulated(Problem):
    """Labels depend on the list; the true reward of any list is known."""

    selected_by = "reward"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        config = load_world(str(folder))
        assert config is not None  # prepare wrote it
        self.config: WorldConfig = config

    def requests(self, split: str) -> pa.Table:
        """The examples of a split."""
        return self.data.examples.take(pa.array(self.rows[split]))

    def true_reward(self, split: str, lists_RL: np.ndarray) -> np.ndarray:
        """r* of a list for each of a split's first R requests [R]."""
        return self.true_rewards(split, lists_RL[:, None])[:, 0]

    def true_rewards(self, split: str, lists_RGL: np.ndarray) -> np.ndarray:
        """r* of several lists for each of a split's first R requests [R, G]."""
        requests = self.requests(split).slice(0, len(lists_RGL))
        return _over_days(
            self.config, requests, lists_RGL, lambda facts, lists_rGL, rows_r: expected_reward(facts, lists_rGL)
        )

    def figures(self, split: str, lists_RL: np.ndarray, scores_RN: np.ndarray | None) -> Figures:
        """True reward, and H, NDCG, MAP, F1 at 6 of engagement at a place; with scores AUC of engagement alone."""
        found_RL, positives_RN = self._engaged(split, lists_RL)
        mask_RN = np.ones_like(positives_RN)
        nothing_R = np.full(len(lists_RL), np.nan)
        return {
            "reward": self.true_reward(split, lists_RL),
            **engagement_figures(found_RL, positives_RN.sum(axis=1)),
            "auc": nothing_R if scores_RN is None else metrics.auc(scores_RN, positives_RN, mask_RN),
        }

    def best(self, split: str) -> np.ndarray:
        """r* of the best list found for each request [R]."""
        return true_best(self.config, self.requests(split))[1]

    def single_item_order(self, split: str) -> np.ndarray:
        """r* of the order by true single-item value [R]: what no pointwise method can be above."""
        return true_single_item_order(self.config, self.requests(split))[1]

    def _engaged(self, split: str, lists_RL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which places of the lists are engaged with [R, L], and which candidates would be if shown alone [R, N]."""
        requests = self.requests(split)
        draw_RN = np.random.default_rng([_USERS_SEED, len(requests)]).random((len(requests), self.config.candidates))

        def alone(facts: CandidateFacts, draw_rN: np.ndarray, rows_r: np.ndarray) -> np.ndarray:
            each_rN1 = np.broadcast_to(np.arange(draw_rN.shape[1])[:, None], (*draw_rN.shape, 1))
            return draw_rN < expected_feedback(facts, each_rN1).click[..., 0]

        def at_place(facts: CandidateFacts, lists_rL: np.ndarray, rows_r: np.ndarray) -> np.ndarray:
            click_rL = expected_feedback(facts, lists_rL[:, None]).click[:, 0]
            draw_rL = np.take_along_axis(draw_RN[rows_r], np.maximum(lists_rL, 0), axis=1)
            return (lists_rL >= 0) & (draw_rL < click_rL)

        positives_RN = _over_days(self.config, requests, draw_RN, alone)
        found_RL = _over_days(self.config, requests, lists_RL, at_place)
        return found_RL & np.take_along_axis(positives_RN, np.maximum(lists_RL, 0), axis=1), positives_RN


def engagement_figures(found_RL: np.ndarray, positives_R: np.ndarray) -> Figures:
    """H, NDCG, MAP and F1 as goalrank.metrics defines them, of hits found place by place."""
    k = found_RL.shape[1]
    discount_K = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount_K)])
    most_R = np.minimum(positives_R, k)
    precision_RL = np.cumsum(found_RL, axis=1) / np.arange(1, k + 1)
    some_R = positives_R > 0

    def of(value_R: np.ndarray, by_R: np.ndarray) -> np.ndarray:
        return np.divide(value_R, by_R, out=np.full(len(value_R), np.nan), where=some_R, casting="unsafe")

    return {
        f"h@{LIST_LENGTH}": of(found_RL.sum(axis=1), positives_R),
        f"ndcg@{LIST_LENGTH}": of(found_RL @ discount_K, ideal[most_R]),
        f"map@{LIST_LENGTH}": of((precision_RL * found_RL).sum(axis=1), most_R),
        f"f1@{LIST_LENGTH}": of(2 * found_RL.sum(axis=1), positives_R + k),
    }


def _over_days(config: WorldConfig, requests: pa.Table, values_RX: np.ndarray, ask) -> np.ndarray:
    """`ask(facts, values_rX, rows_r)` for the requests of each day, put together again."""
    parts, places = [], []
    for rows_r, _, facts in candidate_facts(config, requests, 1):
        parts.append(ask(facts, values_RX[rows_r], rows_r))
        places.append(rows_r)
    return np.concatenate(parts)[np.argsort(np.concatenate(places))]


def world_of(scale: Scale) -> WorldConfig:
    """The study's world: the default one but for what the scale says."""
    return WorldConfig(**dict(scale.world))


def prepare(folder: Path, scale: Scale, scratch: Path) -> None:
    """Simulate the days and write the files of the problem.

    The last day is test, the one before it validation; of both only requests that arrived on their own day.

    Args:
        folder: exists.
        scale: world, days and limits.
        scratch: an empty folder for the logs.
    """
    config = world_of(scale)
    write_days(config, 0, scale.days, str(scratch))
    logs = Logs.read(scratch)
    tables = training_tables(logs, AS_A_NIGHT)
    examples = tables[0]
    dt_E = examples["dt"].to_numpy(zero_copy_only=False).astype(str)
    own_day_E = dt_E == np.array([str(time.date()) for time in examples["event_time"].to_pylist()])
    days = logs.days
    split_E = np.full(len(dt_E), "", dtype=object)
    for split, chosen_E, limit in (
        (TRAIN, np.isin(dt_E, days[FIRST_TRAINED_DAY:-2]), scale.train_requests),
        (VALIDATION, (dt_E == days[-2]) & own_day_E, scale.simulated_requests),
        (TEST, (dt_E == days[-1]) & own_day_E, scale.simulated_requests),
    ):
        split_E[spread_sample(np.flatnonzero(chosen_E), limit, _SAMPLE_SEED)] = split
    card = {"date": days[-1], "days": days, "snapshot_id": "quality-simulator"}
    write_problem(folder, tables, split_E, windows(logs, days[-2], every_impression=False), json.dumps(card))
    (folder / WORLD_FILE).write_text(config.to_json(), encoding="utf-8")


def randomly_shown(problem: Simulated, copies: int) -> tuple[TrainingSet, np.ndarray]:
    """The training requests again, `copies` times each, with uniformly random lists and what users did with them.

    Returns:
        The training set, and the rows to learn from. Features are as they were: nothing of these lists is in them.
    """
    requests = problem.requests(TRAIN)
    chance = np.random.default_rng(_LISTS_SEED)
    parts = []
    for copy in range(copies):
        slate_RL = chance.random((len(requests), problem.config.candidates)).argsort(axis=1)[:, :LIST_LENGTH]
        clicks, likes, seconds = (np.zeros(slate_RL.shape) for _ in range(3))
        ids_RL = np.zeros(slate_RL.shape, dtype=np.int64)
        for rows_r, ids_rN, facts in candidate_facts(problem.config, requests, LIST_LENGTH):
            feedback = sample_feedback(facts, slate_RL[rows_r], chance)
            clicks[rows_r], likes[rows_r], seconds[rows_r] = feedback.click, feedback.like, feedback.watch_seconds
            ids_RL[rows_r] = np.take_along_axis(ids_rN, slate_RL[rows_r], axis=1)
        names = pa.array([f"{name}-random{copy}" for name in requests["request_id"].to_pylist()])
        part = _with(requests, "request_id", names)
        for name, values in (("slate", ids_RL), ("clicks", clicks), ("likes", likes), ("watch_seconds", seconds)):
            part = _with(part, name, pa.array(list(values), part.schema.field(name).type))
        nulls = pa.nulls(len(part), part.schema.field("propensities").type)
        parts.append(_with(part, "propensities", nulls))
    users, items = (pq.read_table(problem.folder / f"{name}.parquet") for name in ("users", "items"))
    shown = TrainingSet(pa.concat_tables(parts), users, items, problem.data.card)
    return shown, np.arange(len(shown))


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
