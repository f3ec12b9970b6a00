"""What a world hands to the study: a training set, which requests are for what, and how lists are judged.

Shapes: R requests of a split, N candidates, L positions, W windows, H history.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from goalrank.dataset import TrainingSet

TRAIN, VALIDATION, TEST = "train", "validation", "test"
Figures = dict[str, np.ndarray]
"""By metric, one value a request, NaN where it has none."""


class Problem(ABC):
    """One world's requests (of one kind of candidates), read from a folder that `World.prepare` made.

    examples.parquet users.parquet items.parquet training_set.json    a training set
    splits.parquet     split of each example, row for row
    windows.npz        items_WH, topics_WH: what the encoder is pretrained on
    """

    selected_by: ClassVar[str]
    """The metric whose validation mean chooses among trials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = TrainingSet.load(folder)
        split_E = pq.read_table(folder / "splits.parquet")["split"].to_numpy(zero_copy_only=False).astype(str)
        self.rows = {name: np.flatnonzero(split_E == name) for name in (TRAIN, VALIDATION, TEST)}
        with np.load(folder / "windows.npz") as windows:
            self.windows = windows["items_WH"], windows["topics_WH"]
        self._user_E = self.data.examples["user_id"].to_numpy()

    def users(self, split: str) -> np.ndarray:
        """user_id of each request of a split [R]."""
        return self._user_E[self.rows[split]]

    @abstractmethod
    def figures(self, split: str, lists_RL: np.ndarray, scores_RN: np.ndarray | None) -> Figures:
        """Judge lists (candidate indices) for all requests of a split.

        Args:
            split: VALIDATION or TEST.
            lists_RL: best first, -1 where a list is shorter.
            scores_RN: one a candidate where the method has them.
        """


def shown_alone(data: TrainingSet) -> TrainingSet:
    """The same, but that of candidates which were not shown nothing is known, whoever chose."""
    made = copy.copy(data)
    made.self_selected_E = np.zeros_like(data.self_selected_E)
    return made


def write_problem(
    folder: Path,
    tables: tuple,
    split_E: np.ndarray,
    windows: tuple[np.ndarray, np.ndarray],
    card: str,
) -> None:
    """The files that :class:`Problem` reads.

    Args:
        folder: exists.
        tables: examples, users and items.
        split_E: TRAIN, VALIDATION, TEST or "" of each example.
        windows: items_WH and topics_WH.
        card: training_set.json.
    """
    for name, table in zip(("examples", "users", "items"), tables, strict=True):
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    pq.write_table(pa.table({"split": split_E}), folder / "splits.parquet", compression="zstd")
    np.savez_compressed(folder / "windows.npz", items_WH=windows[0], topics_WH=windows[1])
    (folder / "training_set.json").write_text(card, encoding="utf-8")


def spread_sample(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the rows, drawn by seed, in their order."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:count])
