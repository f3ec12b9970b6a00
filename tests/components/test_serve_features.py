"""Feature rows in the service: read in pieces, kept until a night brings new ones, defined when the store is away."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.feature_store import OnlineReader, online_rows, open_store
from components.materialize_features import online
from components.materialize_features.erase import erase_online
from components.materialize_features.main import run as materialize
from components.materialize_features.online import read_record
from components.serve_model import feature_rows
from components.serve_model.bodies import parse_rank
from components.serve_model.champion import load_champion
from components.serve_model.feature_rows import CHUNK, FeatureRows
from components.serve_model.ranking import STORE_AWAY, Asked, Ranking
from goalrank import schema
from goalrank.dataset import assemble, batch_from_rows
from goalrank.errors import TryAgain
from tests.components.serving import ITEMS, LAST, USERS, Place, body, make_place
from tests.components.tiny_snapshot import write_snapshot


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = make_place(tmp_path_factory.mktemp("place"))
    made.register(seed=1)
    return made


class Counting:
    """A reader that counts, fails and stalls as told."""

    def __init__(self, reader: OnlineReader | None = None) -> None:
        self.reader, self.asked, self.away, self.mark = reader, [], False, 1
        self.stall = threading.Event()
        self.stall.set()

    def rows(self, entity: str, keys: Sequence[int]) -> pa.Table:
        self.asked.append((entity, list(keys)))
        self.stall.wait(10)
        if self.away:
            raise TryAgain("away")
        if self.reader is not None:
            return self.reader.rows(entity, keys)
        wanted = schema.training_rows_schema(entity)
        columns: list[pa.Array] = [pa.array(list(keys), pa.int64())]
        for field in list(wanted)[1:]:
            counted = pa.types.is_integer(field.type)
            columns.append(pa.array([key if counted else None for key in keys], field.type))
        return pa.Table.from_arrays(columns, schema=wanted)

    def stamp(self) -> tuple[int, ...] | None:
        return None if self.mark == 0 else (self.mark,)

    def count(self) -> int:
        return sum(len(keys) for _, keys in self.asked)


def test_gathered_rows_make_the_batch_that_training_makes(place):
    """Rows kept, rows new, users and items unknown: the same arrays as from the tables themselves."""
    reader = OnlineReader(place.feast_uri)
    rows = FeatureRows(reader)
    rng = np.random.default_rng(0)
    for round_number in range(4):
        users = rng.integers(1, USERS + 6, size=5).tolist()
        candidates = [(rng.choice(ITEMS + 10, size=size, replace=False) + 1).tolist() for size in (3, 12, 1, 7, 9)]
        scores = [rng.normal(size=len(ids)).tolist() for ids in candidates]
        got = rows.gather(users, candidates)
        padded = np.zeros(got.mask_BN.shape)
        padded[got.mask_BN] = [score for one in scores for score in one]
        made = assemble(got.users, got.items, got.user_rows_B, got.rows_BN, padded, got.mask_BN)
        items = sorted({item for ids in candidates for item in ids})
        expected = batch_from_rows(
            online_rows(open_store(place.feast_uri), "user_id", users),
            online_rows(open_store(place.feast_uri), "item_id", items),
            list(range(5)),
            [[items.index(item) for item in ids] for ids in candidates],
            scores,
        )
        for name, tensor in vars(expected).items():
            assert torch.equal(getattr(made, name), tensor), (round_number, name)
        assert got.known_user_B.tolist() == [user <= USERS for user in users]
        assert got.known_items_B.tolist() == [sum(item <= ITEMS for item in ids) for ids in candidates]
        assert not got.away_B.any()


def test_rows_are_read_once_until_a_night_or_their_time_is_over(monkeypatch):
    monkeypatch.setattr(feature_rows, "RENEW_SECONDS", 8.0)
    now, reader = [1000.0], Counting()
    rows = FeatureRows(reader, keep_seconds=100.0, clock=lambda: now[0])
    rows.gather([1, 2], [[5, 6], [6, 7]])
    assert reader.asked == [("user_id", [1, 2]), ("item_id", [5, 6, 7])]
    rows.gather([2], [[7, 5]])
    assert reader.count() == 5
    now[0] += 101.0
    rows.gather([1, 2], [[5, 6, 7]])
    assert reader.count() == 10, "their time is over"
    reader.mark = 0  # a night is writing
    rows.gather([1, 2], [[5, 6, 7]])
    assert reader.count() == 10
    reader.mark = 2  # it has ended
    rows.gather([1], [[5]])
    now[0] += 8.1
    rows.gather([1, 2], [[5, 6, 7]])
    assert reader.count() >= 15, "what was kept is read anew within seconds"


def test_nothing_is_kept_where_that_is_wanted():
    reader = Counting()
    rows = FeatureRows(reader, keep_seconds=0.0)
    for _ in range(3):
        rows.gather([1], [[5, 6]])
    assert reader.count() == 9


def test_large_reads_go_in_pieces_and_old_rows_make_room(monkeypatch):
    monkeypatch.setitem(feature_rows.KEPT, "item_id", 4 * CHUNK)
    reader = Counting()
    rows = FeatureRows(reader)
    rng = np.random.default_rng(1)
    for _ in range(12):
        ids = (rng.choice(20 * CHUNK, size=3 * CHUNK + 5, replace=False) + 1).tolist()
        got = rows.gather([1], [ids])
        assert not got.away_B.any()
        assert got.items.item_id_I[got.rows_BN[0]].tolist() == ids
    assert max(len(keys) for _, keys in reader.asked) == CHUNK
    assert len(rows._slabs["item_id"]) <= 4 * CHUNK


def test_a_store_that_fails_marks_only_those_who_needed_it_and_is_left_alone(place):
    now, reader = [1000.0], Counting(OnlineReader(place.feast_uri))
    rows = FeatureRows(reader, clock=lambda: now[0])
    ranking = Ranking(rows, load_champion(place.tracking_uri))
    known = parse_rank(body(1))
    alone = ranking.rank(known)
    reader.away = True
    asked = len(reader.asked)
    champion = ranking.champion
    new = parse_rank(body(2) | {"user_id": 19})
    both = ranking.rank_all([Asked(known, champion), Asked(new, champion)])
    assert (both[0].items, both[0].fallback, both[1].fallback) == (alone.items, None, STORE_AWAY)
    ranking.rank(new)
    assert len(reader.asked) == asked + 1, "a store that failed is not asked again at once"
    reader.away = False
    now[0] += 1.0
    assert ranking.rank(new).fallback is None


def test_a_store_that_stalls_does_not_hold_up_the_answers(place):
    reader = Counting(OnlineReader(place.feast_uri))
    rows = FeatureRows(reader, read_seconds=0.2)
    reader.stall.clear()
    begun = time.monotonic()
    assert rows.gather([1], [[5]]).away_B.all()
    assert rows.gather([1], [[5]]).away_B.all()
    assert time.monotonic() - begun < 2.0
    reader.stall.set()
    end = time.monotonic() + 10
    while rows.gather([1], [[5]]).away_B.any():
        assert time.monotonic() < end
        time.sleep(0.05)
    # What came late was kept.
    assert [keys for entity, keys in reader.asked if entity == "user_id"] == [[1]]


def test_a_database_that_goes_comes_back_or_is_replaced_is_noticed(tmp_path):
    place = make_place(tmp_path)
    reader = OnlineReader(place.feast_uri)
    before = reader.rows("user_id", [1])
    stamp = reader.stamp()
    away = place.online_database.with_suffix(".away")
    shutil.move(place.online_database, away)
    with pytest.raises(TryAgain, match="is gone"):
        reader.rows("user_id", [1])
    assert not place.online_database.exists(), "reading must not make an empty store"
    shutil.move(away, place.online_database)
    assert reader.rows("user_id", [1]).equals(before) and reader.stamp() == stamp
    shutil.copy(place.online_database, away)
    os.replace(away, place.online_database)  # restored from a copy: the open file is another one
    assert reader.stamp() != stamp and reader.rows("user_id", [1]).equals(before)


def test_a_night_that_ends_changes_the_stamp_and_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_rows, "RENEW_SECONDS", 0.0)
    monkeypatch.setattr(feature_rows, "RENEWED_A_SECOND", 10**9)
    place = make_place(tmp_path)
    reader = OnlineReader(place.feast_uri)
    rows = FeatureRows(reader)

    def dense() -> np.ndarray:
        got = rows.gather([1], [[1, 2, 3]])
        return got.items.dense_IF[got.rows_BN[0]].copy()

    before, stamp = dense(), reader.stamp()
    assert np.array_equal(dense(), before)
    artifact = write_snapshot(tmp_path / "next", "2026-01-05", 2, USERS, ITEMS, seed=9, name="s2")
    write, meanwhile = online._materialize, []

    def dies(*args: object) -> None:
        raise TryAgain("killed")

    def looks(*args: object) -> None:
        read = rows.rows_read["item_id"]
        dense()
        meanwhile.append((reader.stamp(), rows.rows_read["item_id"] - read))
        write(*args)
        dense()
        meanwhile.append((reader.stamp(), rows.rows_read["item_id"] - read))

    def night() -> None:
        materialize(str(artifact), place.feast_uri, str(tmp_path / "training_set_2"), 2, str(tmp_path / "run2"))

    monkeypatch.setattr(online, "_materialize", dies)
    with pytest.raises(TryAgain):
        night()
    assert reader.stamp() is None and np.array_equal(dense(), before), "what was online before is still right"
    monkeypatch.setattr(online, "_materialize", looks)
    night()
    assert len(meanwhile) >= 2 and set(meanwhile) == {(None, 0)}, "no row is renewed from a store half written"
    assert LAST < "2026-01-05" and reader.stamp() not in (None, stamp)
    dense()
    time.sleep(0.01)
    assert not np.array_equal(dense(), before)


def test_an_erased_user_is_nobody_to_a_running_service_within_seconds(tmp_path, monkeypatch):
    """Kept rows know the user until the erasure has them read anew; others stay known."""
    monkeypatch.setattr(feature_rows, "RENEW_SECONDS", 8.0)
    place, now = make_place(tmp_path), [1000.0]
    rows = FeatureRows(OnlineReader(place.feast_uri), read_seconds=60.0, clock=lambda: now[0])

    def known() -> list[bool]:
        return rows.gather([1, 2], [[1], [2]]).known_user_B.tolist()

    assert known() == [True, True]
    record = read_record(place.feast_uri)
    erase_online(place.feast_uri, 1)
    assert read_record(place.feast_uri) == record, "what is online for the next night is what it was"
    known()
    now[0] += 8.1
    assert known() == [False, True]


def test_batching_changes_no_list(place):
    """200 requests of different widths and lengths: the lists are those given one by one."""
    rng = np.random.default_rng(3)
    requests = []
    for number in range(200):
        size = int(rng.integers(1, 30))
        requests.append(parse_rank(body(number, candidates=size, list_length=int(rng.integers(1, 9)))))
    ranking = Ranking(place.features(), load_champion(place.tracking_uri))
    alone = [ranking.rank(one).items for one in requests]
    champion = ranking.champion
    together = []
    for first in range(0, 200, 25):
        together += ranking.rank_all([Asked(one, champion) for one in requests[first : first + 25]])
    assert [one.items for one in together] == alone
    assert all(one.propensities == [1.0] * len(one.items) for one in together)


def test_close_calls_are_answered_alone(place, monkeypatch):
    """With every choice called close, everything is answered alone, and nothing changes."""
    monkeypatch.setattr("components.serve_model.ranking.CLOSE_CALL", 1e9)
    ranking = Ranking(place.features(), load_champion(place.tracking_uri))
    requests = [parse_rank(body(number)) for number in range(5)]
    alone = [ranking.rank(one).items for one in requests]
    together = ranking.rank_all([Asked(one, ranking.champion) for one in requests])
    assert [one.items for one in together] == alone and ranking.answered_alone == 5


def test_one_request_that_breaks_the_model_harms_no_other(place, monkeypatch):
    champion = load_champion(place.tracking_uri)
    ranking = Ranking(place.features(), champion)
    requests = [parse_rank(body(number)) for number in range(4)]
    alone = [ranking.rank(one).items for one in requests]
    greedy = champion.model.greedy
    bad = requests[2].item_ids[0]

    def breaks(encoded, length):  # type: ignore[no-untyped-def]
        if breaks.armed:
            raise RuntimeError("this one")
        return greedy(encoded, length)

    breaks.armed = False
    encode = champion.model.encode

    def watches(batch):  # type: ignore[no-untyped-def]
        breaks.armed = bool((batch.item_id_BN[:, 0] == bad).any())
        return encode(batch)

    monkeypatch.setattr(champion.model, "greedy", breaks)
    monkeypatch.setattr(champion.model, "encode", watches)
    ranked = ranking.rank_all([Asked(one, champion) for one in requests])
    assert [one.fallback for one in ranked] == [None, None, "model_failed", None]
    assert [ranked[number].items for number in (0, 1, 3)] == [alone[number] for number in (0, 1, 3)]
