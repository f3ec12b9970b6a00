"""Slices of the evaluation requests, against plain Python on a synthetic training set."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from goalrank import slices
from goalrank.dataset import TrainingSet
from goalrank.schema import LIST_LENGTH
from goalrank.verdict.thresholds import TOPIC_SLICES
from tests.synthetic import TOPICS, make_training_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices") / "training_set"
    make_training_set(folder, requests=400, days=1)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return TrainingSet.load(folder)


@pytest.fixture(scope="module")
def rows(folder):
    """Plain rows of the evaluation requests, each with its user's and its candidates' feature rows."""
    users, items = (pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("users", "items"))
    examples = pq.read_table(folder / "examples.parquet").to_pylist()
    data = TrainingSet.load(folder)
    chosen = [examples[index] for index in data.evaluation_indices()]
    return [
        row | {"user": users[row["user_row"]], "items": [items[i] for i in row["candidate_rows"]]} for row in chosen
    ]


def test_new_users_have_clicked_little_or_are_unknown(data, rows):
    found = slices.slices_of(data, data.evaluation_indices())["new_users"]
    expected = [len(row["user"]["history_items"] or []) < slices.NEW_USER_CLICKS for row in rows]
    assert found.tolist() == expected
    known = {len(row["user"]["history_items"] or []) for row in rows}
    assert {0, slices.NEW_USER_CLICKS - 1, slices.NEW_USER_CLICKS} <= known, (
        "an unknown user and both sides of the line"
    )


def test_heavy_users_are_the_fifth_that_has_seen_most(data, rows):
    found = slices.slices_of(data, data.evaluation_indices())["heavy_users"]
    seen = np.array([row["user"]["impressions"] or 0 for row in rows])
    assert found.mean() == pytest.approx(slices.EXTREME_SHARE, abs=0.06)
    assert seen[found].min() > seen[~found].max()


def test_new_items_are_where_most_candidates_are_hardly_known(data, rows, monkeypatch):
    monkeypatch.setattr(slices, "NEW_ITEM_IMPRESSIONS", 60)  # the synthetic items' mean: some have just so many
    found = slices.slices_of(data, data.evaluation_indices())["new_items"]
    few = np.array(
        [sum((i["impressions_total"] or 0) < slices.NEW_ITEM_IMPRESSIONS for i in row["items"]) for row in rows]
    )
    assert found.tolist() == (few >= np.quantile(few, 1 - slices.EXTREME_SHARE)).tolist()
    assert few[found].min() > few.min()


def test_nothing_is_most_where_all_are_alike():
    assert not slices._most(np.zeros(50)).any()
    assert slices._most(np.zeros(0)).tolist() == []


def test_short_lists_leave_little_room(folder, tmp_path):
    make_training_set(tmp_path / "few", requests=60, candidates=2 * LIST_LENGTH - 1)
    few = TrainingSet.load(tmp_path / "few")
    assert slices.slices_of(few, few.evaluation_indices())["short_lists"].all()
    many = TrainingSet.load(folder)
    assert not slices.slices_of(many, many.evaluation_indices())["short_lists"].any()


def test_topics_part_the_requests_of_users_with_a_taste(data, rows):
    found = slices.slices_of(data, data.evaluation_indices())
    topics = {name: chosen for name, chosen in found.items() if name.startswith("topic_")}
    assert 1 < len(topics) <= TOPICS
    for row, memberships in zip(rows, np.array(list(topics.values())).T, strict=True):
        counts = row["user"]["topic_clicks"]
        expected = [] if not counts or not sum(counts) else [f"topic_{int(np.argmax(counts))}"]
        assert [name for name, member in zip(topics, memberships, strict=True) if member] == expected


def test_beyond_the_largest_topics_the_rest_is_one_slice():
    shares_RT = np.eye(TOPIC_SLICES + 4).repeat(np.arange(1, TOPIC_SLICES + 5), axis=0)  # topic t leads t + 1 requests
    found = slices._topics(shares_RT)
    assert list(found) == [f"topic_{topic}" for topic in range(4, TOPIC_SLICES + 4)] + ["topic_rest"]
    assert found["topic_rest"].sum() == 1 + 2 + 3 + 4
    assert np.sum(list(found.values())) == len(shares_RT)
