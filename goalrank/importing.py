"""Write an import: requests made of ratings, as logs of the data contract, with what a benchmark needs beside them.

    LOGS/requests/ impressions/ items/ users/   the data contract's tables (goalrank.schema)
    LOGS/import.json                            protocol, seed, source files, counts, sanity figures
    LOGS/splits.parquet                         request_id, user_id, number, split, dt: which requests are whose
    LOGS/user_ids.parquet, item_ids.parquet     id, original: only where the source's ids had to be mapped

Every request's policy is SELF_SELECTED, its propensities and watch times null: nobody ranked, people chose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from goalrank.candidates import KINDS, NEIGHBOURHOOD, CandidateMaker
from goalrank.errors import UsageError
from goalrank.logs_writer import write_partition, written_aside
from goalrank.metrics import hit_at_k, map_at_k, ndcg_at_k
from goalrank.offline_protocol import (
    HISTORY_DAY,
    SPLITS,
    TEST,
    IntArray,
    Ratings,
    Requests,
    Sequences,
    make_requests,
    sequences,
    split_counts,
)
from goalrank.retriever import FACTORS, Retriever, fit_retriever
from goalrank.schema import LIST_LENGTH, SELF_SELECTED, TIMESTAMP

Progress = Callable[[int, int, str], None]
"""Called with done, total and a note, as Step.progress is."""

BOTH = "both"
_BORN = datetime.combine(HISTORY_DAY - timedelta(days=1), datetime.min.time(), tzinfo=UTC)


@dataclass(frozen=True)
class Source:
    """What an importer read: ratings, what is known of items and users, and what counts as engagement."""

    kind: str
    files: Sequence[Path]
    ratings: Ratings
    core: int
    click_from: float
    like_from: float
    titles: dict[int, str]
    topics: dict[int, list[int]] = field(default_factory=dict)
    attributes: dict[int, list[str]] = field(default_factory=dict)
    mapped_users: dict[int, str] | None = None
    mapped_items: dict[int, str] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def kinds_of(candidates: str) -> tuple[str, ...]:
    """The candidate sets a value of ``candidates`` asks for.

    Raises:
        UsageError: neither matched, retrieved nor both.
    """
    if candidates == BOTH:
        return KINDS
    if candidates not in KINDS:
        raise UsageError(f"candidates {candidates!r} found, expected matched, retrieved or both")
    return (candidates,)


def write_import(
    source: Source, out: str, candidates: str, seed: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Make requests of the ratings and write the logs: OUT itself, or OUT/matched and OUT/retrieved for "both".

    Returns:
        What import.json holds; for "both" a dict of the two.

    Raises:
        UsageError: OUT is occupied, or ``candidates`` is none of the three.
        DataRefused: too few ratings for a single request.
    """
    kinds = kinds_of(candidates)
    tell: Progress = progress or (lambda done, total, note: None)
    tell(0, 1, "filter and slates")
    rows = sequences(source.ratings, source.core)
    requests = make_requests(rows, seed)
    total = len(kinds) * len(requests.days) + 2
    tell(1, total, "retriever")
    first_half_R = rows.in_first_half
    retriever = fit_retriever(
        rows.user_R[first_half_R], rows.item_R[first_half_R], len(rows.user_ids_U), len(rows.item_ids_I), seed
    )
    documents = {}
    with written_aside(out) as aside:
        for number, kind in enumerate(kinds):
            writer = _Logs(aside / kind if candidates == BOTH else aside, source, rows, requests, retriever, kind, seed)
            for place, day in enumerate(requests.days):
                tell(2 + number * len(requests.days) + place, total, f"{kind} {day}")
                writer.write_day(place, day)
            documents[kind] = writer.write_rest()
    tell(total, total, "done")
    return documents if candidates == BOTH else documents[kinds[0]]


class _Logs:
    """One set of logs being written."""

    def __init__(
        self,
        root: Path,
        source: Source,
        rows: Sequences,
        requests: Requests,
        retriever: Retriever,
        kind: str,
        seed: int,
    ) -> None:
        self._root, self._source, self._rows, self._requests = root, source, rows, requests
        self._kind, self._seed = kind, seed
        self._maker = CandidateMaker(rows, retriever, kind, seed)
        self._request_id = _request_ids(rows.user_ids_U[requests.user_Q], requests.number_Q)
        self._written = {"requests": 0, "impressions": 0}
        self._sanity: dict[str, Any] = {}

    def write_day(self, place: int, day: date) -> None:
        """Write the requests and impressions of the ``place``-th day."""
        chosen = np.flatnonzero(self._requests.day_Q == place)
        requests, request_id = self._requests.take(chosen), self._request_id.take(pa.array(chosen))
        item_QN, score_QN = self._maker.make(requests)
        real_QN = item_QN >= 0
        offset_Q = np.concatenate(([0], np.cumsum(real_QN.sum(axis=1)))).astype(np.int32)
        self._written["requests"] += write_partition(
            self._root,
            "requests",
            day,
            {
                "request_id": request_id,
                "user_id": self._rows.user_ids_U[requests.user_Q],
                "event_time": _times(requests.time_Q),
                "candidates": pa.ListArray.from_arrays(offset_Q, self._rows.item_ids_I[item_QN[real_QN]]),
                "candidate_scores": pa.ListArray.from_arrays(offset_Q, score_QN[real_QN]),
                "policy": pa.repeat(SELF_SELECTED, len(requests)),
            },
        )
        self._write_impressions(requests, request_id, day)
        if requests.split_Q[-1] == TEST:
            self._sanity = _sanity(item_QN, score_QN, self._clicked(requests, item_QN), self._seed)

    def _write_impressions(self, requests: Requests, request_id: pa.Array, day: date) -> None:
        request_S = np.repeat(np.arange(len(requests)), requests.length_Q)
        first_Q = np.cumsum(requests.length_Q) - requests.length_Q
        place_S = np.arange(len(request_S)) - first_Q[request_S]
        row_S = requests.start_Q[request_S] + place_S
        rating_S = self._rows.rating_R[row_S]
        self._written["impressions"] += write_partition(
            self._root,
            "impressions",
            day,
            {
                "request_id": request_id.take(pa.array(request_S)),
                "position": place_S + 1,
                "item_id": self._rows.item_ids_I[self._rows.item_R[row_S]],
                "propensity": pa.nulls(len(row_S), pa.float64()),
                "click": (rating_S >= self._source.click_from).astype(np.int8),
                "like": (rating_S >= self._source.like_from).astype(np.int8),
                "watch_seconds": pa.nulls(len(row_S), pa.float64()),
            },
        )

    def _clicked(self, requests: Requests, item_QN: IntArray) -> npt.NDArray[np.bool_]:
        """Which candidates are slate items that were clicked: [Q, N]. Whole slates only."""
        row_QL = requests.start_Q[:, None] + np.arange(LIST_LENGTH)
        item_QL = np.where(self._rows.rating_R[row_QL] >= self._source.click_from, self._rows.item_R[row_QL], -2)
        return (item_QN[:, :, None] == item_QL[:, None, :]).any(axis=2)

    def write_rest(self) -> dict[str, Any]:
        """Items, users, splits, id mappings and import.json; returns what import.json holds."""
        source, rows, requests = self._source, self._rows, self._requests
        items, users = rows.item_ids_I.tolist(), rows.user_ids_U.tolist()
        write_partition(
            self._root,
            "items",
            HISTORY_DAY,
            {
                "item_id": items,
                "created_at": [_BORN] * len(items),
                "topics": [source.topics.get(item, []) for item in items],
                "duration_seconds": [None] * len(items),
                "title": [source.titles[item] for item in items],
            },
        )
        write_partition(
            self._root,
            "users",
            HISTORY_DAY,
            {
                "user_id": users,
                "created_at": [_BORN] * len(users),
                "attributes": [source.attributes.get(user, []) for user in users],
            },
        )
        days = requests.days
        splits = {
            "request_id": self._request_id,
            "user_id": rows.user_ids_U[requests.user_Q],
            "number": requests.number_Q,
            "split": [SPLITS[split] for split in requests.split_Q],
            "dt": [days[day].isoformat() for day in requests.day_Q],
        }
        pq.write_table(pa.table(splits), self._root / "splits.parquet", compression="zstd")
        for name, mapped, kept in (
            ("user_ids", source.mapped_users, users),
            ("item_ids", source.mapped_items, items),
        ):
            if mapped is not None:
                table = pa.table({"id": pa.array(kept, pa.int64()), "original": [mapped[key] for key in kept]})
                pq.write_table(table, self._root / f"{name}.parquet", compression="zstd")
        document = self._document(days)
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (self._root / "import.json").write_text(text, encoding="utf-8")
        return document

    def _document(self, days: list[date]) -> dict[str, Any]:
        source, rows = self._source, self._rows
        return {
            "format": 1,
            "kind": source.kind,
            "candidates": self._kind,
            "seed": self._seed,
            "source": {path.name: _sha256(path) for path in source.files},
            "protocol": {
                "core": source.core,
                "list_length": LIST_LENGTH,
                "neighbourhood": NEIGHBOURHOOD if self._kind == "matched" else None,
                "retriever_factors": FACTORS,
                "click_from": source.click_from,
                "like_from": source.like_from,
            },
            "counts": {
                "ratings_read": len(source.ratings.user_id_R),
                "ratings": len(rows.user_R),
                "users": len(rows.user_ids_U),
                "items": len(rows.item_ids_I),
                **self._written,
            },
            "splits": dict(split_counts(self._requests)),
            "days": {"first": days[0].isoformat(), "last": days[-1].isoformat(), "count": len(days)},
            "sanity_on_test": self._sanity,
            **({"notes": source.notes} if source.notes else {}),
        }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _request_ids(user_id_Q: IntArray, number_Q: IntArray) -> pa.Array:
    """u<user>-<number>, the number padded so that a user's requests sort by it."""
    number = pc.utf8_lpad(pa.array(number_Q).cast(pa.string()), 5, "0")
    user = pc.binary_join_element_wise("u", pa.array(user_id_Q).cast(pa.string()), "")
    return pc.binary_join_element_wise(user, number, "-")


def _times(time_Q: IntArray) -> pa.Array:
    midnight = datetime.combine(HISTORY_DAY, datetime.min.time(), tzinfo=UTC)
    return pa.array(time_Q + int(midnight.timestamp()) * 1_000_000).cast(TIMESTAMP)


def _sanity(
    item_QN: IntArray, score_QN: npt.NDArray[np.float64], clicked_QN: npt.NDArray[np.bool_], seed: int
) -> dict[str, Any]:
    """What needs no training on the test requests with a click: random order, the retriever's, and its reverse."""
    random_QN = np.random.default_rng([seed, 5]).random(item_QN.shape)
    orders = {"random": random_QN, "retriever_ascending": -score_QN, "retriever_descending": score_QN}
    figures: dict[str, Any] = {"requests": int(clicked_QN.any(axis=1).sum())}
    for name, values_QN in orders.items() if figures["requests"] else ():
        real_QN = np.where(item_QN >= 0, values_QN, -np.inf)
        best_QL = np.argsort(-real_QN, axis=1, kind="stable")[:, :LIST_LENGTH]
        per_request = {
            f"h@{LIST_LENGTH}": hit_at_k(best_QL, clicked_QN, LIST_LENGTH),
            f"ndcg@{LIST_LENGTH}": ndcg_at_k(best_QL, clicked_QN, LIST_LENGTH),
            f"map@{LIST_LENGTH}": map_at_k(best_QL, clicked_QN, LIST_LENGTH),
        }
        figures[name] = {metric: round(float(np.nanmean(value_Q)), 4) for metric, value_Q in per_request.items()}
    return figures
