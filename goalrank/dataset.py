"""A training set as arrays, and batches of requests cut from it.

Users and items are encoded once, when the set is loaded; a batch only gathers rows by index. There is no loop over
requests anywhere on the way to a batch.

Legend: B requests, N candidates (padded to the batch's longest), L positions, H history, F dense features, T topics.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from goalrank.errors import DataRefused
from goalrank.features import ItemRows, UserRows, encode_items, encode_users
from goalrank.schema import SELF_SELECTED, TRAINING_EXAMPLES

JUDGE_FOLDS = 3
"""One request in so many belongs to the judge (fold 0); the guide and the ranker learn from the others."""


@dataclass
class RequestBatch:
    """What is known of B requests before a list is chosen; no feedback in it."""

    user_dense_BF: Tensor
    user_topics_BT: Tensor
    history_items_BH: Tensor  # int64, right-padded with 0; H is the batch's longest history, at least 1
    history_topics_BH: Tensor  # int64 topic masks
    attributes_BA: Tensor  # int64 hashes, 0 = none
    item_id_BN: Tensor  # int64
    item_dense_BNF: Tensor
    item_topics_BNT: Tensor
    score_BN: Tensor  # retriever's score, z-scored within the request over its real candidates
    mask_BN: Tensor  # bool, True = a real candidate

    def to(self, device: torch.device | str) -> RequestBatch:
        """The same batch on another device."""
        return RequestBatch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    def rows(self, chosen: slice) -> RequestBatch:
        """Some of the requests, padded as they were."""
        return RequestBatch(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def __len__(self) -> int:
        return self.mask_BN.shape[0]


@dataclass
class Feedback:
    """What users did with the lists they were shown."""

    slate_BL: Tensor  # int64 index among the request's candidates, -1 = padding
    click_BL: Tensor  # float32 0/1, 0 where padded
    like_BL: Tensor
    watch_seconds_BL: Tensor  # float32, NaN where unknown or padded
    propensity_BL: Tensor  # float32, NaN where unknown or padded
    mask_BL: Tensor  # bool, True = a shown item
    self_selected_B: Tensor  # bool, True = no ranker chose (schema.SELF_SELECTED)

    def to(self, device: torch.device | str) -> Feedback:
        """The same feedback on another device."""
        return Feedback(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


def fold_of(request_id: str) -> int:
    """A number of the request that never changes (SHA-1 of its id): folds are `fold_of(id) % JUDGE_FOLDS`."""
    return int.from_bytes(hashlib.sha1(request_id.encode(), usedforsecurity=False).digest()[:8], "big")


class TrainingSet:
    """The training set artifact: requests of the training days and of the evaluation day, with features as of then."""

    def __init__(self, examples: pa.Table, users: pa.Table, items: pa.Table, card: dict) -> None:
        """Encode the tables; :meth:`load` reads them.

        Raises:
            DataRefused: a column is missing, a row index points nowhere, or a slate holds what is no candidate.
        """
        self.examples = _conform(examples)
        self.card = card
        self.date: str = card["date"]
        self.days: list[str] = list(card["days"])
        self.snapshot_id: str = card["snapshot_id"]
        self.users, self.items = encode_users(users), encode_items(items)
        self.user_id_U = users.column("user_id").to_numpy()
        self.user_as_of_U = users.column("as_of").cast(pa.int64()).to_numpy()
        self.user_row_E = self.examples.column("user_row").to_numpy()
        self.dt_E = self.examples.column("dt").to_numpy(zero_copy_only=False).astype(str)
        self.request_ids: list[str] = self.examples.column("request_id").to_pylist()
        self.self_selected_E = pc.equal(self.examples.column("policy"), SELF_SELECTED).to_numpy(zero_copy_only=False)
        self.candidates = Ragged(self.examples.column("candidate_rows"))
        self._scores = Ragged(self.examples.column("candidate_scores"))
        self.slates = Ragged(self.examples.column("slate"))
        self._clicks, self._likes, self._watch, self._propensities = (
            Ragged(self.examples.column(name)).aligned(self.slates)
            for name in ("clicks", "likes", "watch_seconds", "propensities")
        )
        self._check(len(users), len(items))
        self._slate_index = self._locate_slates()
        # No choice, nothing to learn or to compare: every candidate was shown (or none). Histories still hold them.
        self.choice_E = (self.candidates.lengths > self.slates.lengths) & (self.slates.lengths > 0)
        self.judged_E = np.array([fold_of(name) % JUDGE_FOLDS == 0 for name in self.request_ids], dtype=bool)

    @classmethod
    def load(cls, directory: str | Path) -> TrainingSet:
        """Read a training set artifact.

        Raises:
            DataRefused: a file is missing or breaks the contract of schema.TRAINING_EXAMPLES.
        """
        folder = Path(directory)
        for name in ("examples.parquet", "users.parquet", "items.parquet", "training_set.json"):
            if not (folder / name).is_file():
                raise DataRefused(f"training set {folder} has no {name}; materialise the features again")
        card = json.loads((folder / "training_set.json").read_text())
        examples, users, items = (pq.read_table(folder / f"{name}.parquet") for name in ("examples", "users", "items"))
        return cls(examples, users, items, card)

    def digest(self) -> bytes:
        """SHA-256 of all that a model is shown: requests, candidates, feedback, encoded features."""
        ragged = [
            self.candidates,
            self._scores,
            self.slates,
            self._clicks,
            self._likes,
            self._watch,
            self._propensities,
        ]
        arrays = [
            *(getattr(rows, field.name) for rows in (self.users, self.items) for field in fields(rows)),
            *(array for one in ragged for array in (one.lengths, one.values)),
            *(self.user_row_E, self.self_selected_E, self.choice_E, self.judged_E),
        ]
        digest = hashlib.sha256(json.dumps([self.card, self.request_ids, self.dt_E.tolist()], sort_keys=True).encode())
        for array in arrays:
            digest.update(f"{array.shape} {array.dtype};".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.digest()

    def __len__(self) -> int:
        return len(self.request_ids)

    @property
    def train_days(self) -> list[str]:
        """Arrival days before `date`, oldest first."""
        return sorted(day for day in self.days if day < self.date)

    def train_indices(self) -> np.ndarray:
        """Requests that arrived before `date` and offered a choice, in order of time."""
        return np.flatnonzero((self.dt_E < self.date) & self.choice_E)

    def evaluation_indices(self) -> np.ndarray:
        """Requests that arrived on `date` and offered a choice: no model was trained on that day."""
        return np.flatnonzero((self.dt_E == self.date) & self.choice_E)

    def guide_indices(self) -> np.ndarray:
        """Training requests that the guiding reward model and the ranker may see."""
        return np.flatnonzero((self.dt_E < self.date) & self.choice_E & ~self.judged_E)

    def judge_indices(self) -> np.ndarray:
        """Training requests of the judge's fold: no other reward model and no ranker is trained on them."""
        return np.flatnonzero((self.dt_E < self.date) & self.choice_E & self.judged_E)

    def batch(self, indices: np.ndarray | Sequence[int]) -> RequestBatch:
        """Requests by their rows in examples.parquet."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows_BN, mask_BN = self.candidates.gather(chosen)
        scores_BN, _ = self._scores.gather(chosen)
        return assemble(self.users, self.items, self.user_row_E[chosen], rows_BN, scores_BN, mask_BN)

    def feedback(self, indices: np.ndarray | Sequence[int]) -> Feedback:
        """Logged lists and feedback of the same requests, positions in list order."""
        chosen = np.asarray(indices, dtype=np.int64)
        slate_BL, mask_BL = self._slate_index.gather(chosen)
        return Feedback(
            slate_BL=torch.from_numpy(np.where(mask_BL, slate_BL, -1)),
            click_BL=self._floats(self._clicks, chosen, 0.0),
            like_BL=self._floats(self._likes, chosen, 0.0),
            watch_seconds_BL=self._floats(self._watch, chosen, np.nan),
            propensity_BL=self._floats(self._propensities, chosen, np.nan),
            mask_BL=torch.from_numpy(mask_BL),
            self_selected_B=torch.from_numpy(self.self_selected_E[chosen]),
        )

    @staticmethod
    def _floats(ragged: Ragged, chosen: np.ndarray, fill: float) -> Tensor:
        values, mask = ragged.gather(chosen)
        return torch.from_numpy(np.where(mask, values, fill).astype(np.float32))

    def _check(self, users: int, items: int) -> None:
        for what, rows, limit in (
            ("user_row", self.user_row_E, users),
            ("candidate_rows", self.candidates.values, items),
        ):
            if len(rows) and (rows.min() < 0 or rows.max() >= limit):
                raise DataRefused(
                    f"{what} holds {rows.min()}..{rows.max()}, expected 0..{limit - 1}; materialise again"
                )
        if not np.array_equal(self.candidates.lengths, self._scores.lengths):
            row = int(np.flatnonzero(self.candidates.lengths != self._scores.lengths)[0])
            raise DataRefused(
                f"request {self.request_ids[row]!r} has {self.candidates.lengths[row]} candidates and "
                f"{self._scores.lengths[row]} candidate_scores, expected as many of both"
            )

    def _locate_slates(self) -> Ragged:
        """Slates as indices among their request's candidates."""
        ids = np.concatenate([self.items.item_id_I[self.candidates.values], self.slates.values])
        _, codes = np.unique(ids, return_inverse=True)
        stride = int(codes.max(initial=0)) + 1
        split = len(self.candidates.values)
        candidate_keys = self.candidates.row_of_value() * stride + codes[:split]
        slate_keys = self.slates.row_of_value() * stride + codes[split:]
        order = np.argsort(candidate_keys, kind="stable")
        at = np.searchsorted(candidate_keys[order], slate_keys)
        found = order[np.minimum(at, max(split - 1, 0))] if split else np.zeros(len(slate_keys), dtype=np.int64)
        wrong = np.flatnonzero(candidate_keys[found] != slate_keys) if split else np.arange(len(slate_keys))
        if len(wrong):
            row = int(self.slates.row_of_value()[wrong[0]])
            raise DataRefused(
                f"request {self.request_ids[row]!r} shows item {self.slates.values[wrong[0]]}, "
                "which is not among its candidates"
            )
        return self.slates.with_values(found - self.candidates.starts[self.slates.row_of_value()])


class Ragged:
    """A list column as one flat array and offsets, from which padded rows are gathered."""

    def __init__(self, column: pa.ChunkedArray | pa.Array) -> None:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        self.lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        flat = array.flatten()
        self.values = (flat.cast(pa.float64()) if flat.null_count else flat).to_numpy(zero_copy_only=False)  # null: NaN
        self.starts = np.cumsum(self.lengths) - self.lengths

    def with_values(self, values: np.ndarray) -> Ragged:
        """The same lengths around other values."""
        twin = object.__new__(Ragged)
        twin.lengths, twin.starts, twin.values = self.lengths, self.starts, values
        return twin

    def aligned(self, other: Ragged) -> Ragged:
        """With the lengths of `other`: rows that are null here become NaN there.

        Raises:
            DataRefused: a row is neither null nor of the other's length.
        """
        if np.array_equal(self.lengths, other.lengths):
            return self
        wrong = np.flatnonzero((self.lengths != other.lengths) & (self.lengths > 0))
        if len(wrong):
            found, expected = self.lengths[wrong[0]], other.lengths[wrong[0]]
            raise DataRefused(f"row {wrong[0]} has {found} values of feedback beside {expected} shown items")
        kept = np.repeat(self.lengths == other.lengths, other.lengths)
        values = np.full(len(other.values), np.nan)
        values[kept] = self.values
        return other.with_values(values)

    def row_of_value(self) -> np.ndarray:
        """Row of each flat value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows padded to the longest: values [B, W] (whatever lies there where padded) and mask [B, W]; W >= 1."""
        lengths = self.lengths[rows]
        columns = np.arange(max(int(lengths.max(initial=0)), 1))
        mask = columns < lengths[:, None]
        if not len(self.values):
            return np.zeros(mask.shape, dtype=self.values.dtype), mask
        at = np.minimum(self.starts[rows][:, None] + columns, len(self.values) - 1)
        return self.values[at], mask


def batch_from_rows(
    users: pa.Table,
    items: pa.Table,
    user_index: Sequence[int],
    candidate_rows: Sequence[Sequence[int]],
    scores: Sequence[Sequence[float]],
) -> RequestBatch:
    """A batch straight from feature rows, as the ranking service reads them online.

    Args:
        users: rows with the features of schema.USER_VIEWS.
        items: rows with item_id and the features of schema.ITEM_VIEWS.
        user_index: row of `users` for each request.
        candidate_rows: rows of `items` for each request, in the order in which lists will index them.
        scores: the retriever's scores, as many as candidates.

    Raises:
        DataRefused: a column is missing, or scores and candidates differ in number.
    """
    rows = Ragged(pa.array([list(row) for row in candidate_rows], pa.list_(pa.int64())))
    values = Ragged(pa.array([list(row) for row in scores], pa.list_(pa.float64())))
    if not np.array_equal(rows.lengths, values.lengths):
        raise DataRefused(f"scores found: {values.lengths.tolist()}, expected one a candidate: {rows.lengths.tolist()}")
    everything = np.arange(len(rows.lengths))
    rows_BN, mask_BN = rows.gather(everything)
    user_rows = np.asarray(user_index, dtype=np.int64)
    scores_BN, _ = values.gather(everything)
    return assemble(encode_users(users), encode_items(items), user_rows, rows_BN, scores_BN, mask_BN)


def assemble(
    users: UserRows,
    items: ItemRows,
    user_rows_B: np.ndarray,
    rows_BN: np.ndarray,
    scores_BN: np.ndarray,
    mask_BN: np.ndarray,
) -> RequestBatch:
    """A batch of rows that are encoded already: row of `users` and rows of `items` of each request.

    Where mask_BN is False a place is padding, whatever rows_BN and scores_BN hold there.
    """
    history_BH = users.history_items_UH[user_rows_B]
    length = max(int((history_BH != 0).sum(axis=1).max(initial=0)), 1)
    # A padded place repeats some real row; zeroing it keeps the batch independent of what lies there.
    safe_BN = np.where(mask_BN, rows_BN, 0)
    real_BN1 = torch.from_numpy(mask_BN)[..., None]
    return RequestBatch(
        user_dense_BF=torch.from_numpy(users.dense_UF[user_rows_B]),
        user_topics_BT=torch.from_numpy(users.topics_UT[user_rows_B]),
        history_items_BH=torch.from_numpy(np.ascontiguousarray(history_BH[:, :length])),
        history_topics_BH=torch.from_numpy(np.ascontiguousarray(users.history_topics_UH[user_rows_B, :length])),
        attributes_BA=torch.from_numpy(users.attributes_UA[user_rows_B]),
        item_id_BN=torch.from_numpy(np.where(mask_BN, items.item_id_I[safe_BN], 0)),
        item_dense_BNF=torch.from_numpy(items.dense_IF[safe_BN]) * real_BN1,
        item_topics_BNT=torch.from_numpy(items.topics_IT[safe_BN]) * real_BN1,
        score_BN=torch.from_numpy(_z_scores(scores_BN, mask_BN)),
        mask_BN=torch.from_numpy(mask_BN),
    )


def _z_scores(scores_BN: np.ndarray, mask_BN: np.ndarray) -> np.ndarray:
    """Scores centred and scaled within each request (ddof 0) over its real, finite scores; 0 elsewhere."""
    valid_BN = mask_BN & np.isfinite(scores_BN)
    clean_BN = np.where(valid_BN, scores_BN, 0.0)
    count_B1 = np.maximum(valid_BN.sum(axis=1, keepdims=True), 1)
    centred_BN = np.where(valid_BN, clean_BN - clean_BN.sum(axis=1, keepdims=True) / count_B1, 0.0)
    spread_B1 = np.sqrt((centred_BN**2).sum(axis=1, keepdims=True) / count_B1)
    flat_B1 = spread_B1 <= 1e-9 * np.maximum(np.abs(clean_BN).max(axis=1, initial=0.0, keepdims=True), 1e-9)
    return np.where(flat_B1, 0.0, centred_BN / np.where(flat_B1, 1.0, spread_B1)).astype(np.float32)


def _conform(examples: pa.Table) -> pa.Table:
    """The examples with the contract's columns and types, in the contract's order."""
    missing = [name for name in TRAINING_EXAMPLES.names if name not in examples.column_names]
    if missing:
        raise DataRefused(f"examples.parquet lacks {', '.join(missing)}; found {', '.join(examples.column_names)}")
    try:
        return examples.select(TRAINING_EXAMPLES.names).cast(TRAINING_EXAMPLES)
    except (pa.ArrowInvalid, ValueError) as error:
        raise DataRefused(f"examples.parquet breaks the contract of training examples: {error}") from error
