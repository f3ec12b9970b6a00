"""8. Rows that break the contract are named in the refusal; ids never seen are served with a defined fallback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.serve_model.ranking import UNKNOWN_USER
from goalrank import schema
from goalrank.errors import EXIT_DATA_REFUSED
from tests.components.serving import Place, body, by_score, make_place, post, serving
from tests.components.test_check_logs import DAYS, faulty  # noqa: F401  (a fixture: one night with every bad row at once)
from tests.faults.conftest import Seen

BAD_ROWS = [
    # what, the check, the row it names
    (
        "a position twice",
        "impressions: expected each (request_id, position) once",
        f"request_id={DAYS[2]}-a position=2",
    ),
    (
        "a gap in the positions",
        "impressions: expected the positions of a request to be 1..k",
        f"request_id={DAYS[2]}-b",
    ),
    (
        "an item not among the candidates",
        "impressions: expected every shown item among",
        f"{DAYS[2]}-c position=1 item_id=99",
    ),
    ("negative watch time", "impressions: expected watch_seconds null or a finite", f"{DAYS[2]}-d"),
    ("watch time NaN", "impressions: expected watch_seconds null or a finite", f"{DAYS[2]}-e"),
    ("a future date", "requests: expected event_time no later", f"{DAYS[2]}-tomorrow"),
    ("a score NaN", "requests: expected finite candidate_scores", f"{DAYS[2]}-nan"),
    ("a propensity of 0", "impressions: expected propensity null or in (0, 1]", f"{DAYS[2]}-h"),
    ("a propensity NaN", "impressions: expected propensity null or in (0, 1]", f"{DAYS[2]}-i"),
    ("a request twice", "requests: expected each request_id once", f"{DAYS[2]}-twice"),
    ("an impression of no request", "impressions: expected the request of each impression", "nobody-asked"),
    ("user 0", "requests: expected user_id of 1 and above", f"{DAYS[2]}-user-0"),
    ("a user without id", "requests: expected user_id never null", f"{DAYS[2]}-nobody"),
    ("a duration NaN", "items: expected duration_seconds null or a finite", "item_id=22"),
]


def test_each_bad_row_is_named(faulty: tuple[str, dict[str, Any], Path], seen: Seen) -> None:  # noqa: F811
    message, outcome, _ = faulty
    assert outcome["exit_code"] == EXIT_DATA_REFUSED
    for what, check, row in BAD_ROWS:
        (named,) = [line for line in message.splitlines() if check in line]
        assert row in named, what
        assert "found" in named and "To mend:" in named
    seen(
        f"one partition with {len(BAD_ROWS)} kinds of bad rows ({', '.join(what for what, _, _ in BAD_ROWS[:7])}, ...)",
        f"exit {EXIT_DATA_REFUSED}, each named with its row",
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = make_place(tmp_path_factory.mktemp("place"))
    place.register(seed=3)
    return place


def test_unseen_ids_are_served(place: Place, tmp_path: Path, seen: Seen) -> None:
    known = body(1)
    stranger = known | {"user_id": 10**15}
    new_item = body(2)
    new_item["candidates"][0]["item_id"] = 2**63 - 1
    all_new = body(3) | {"user_id": 10**14}
    all_new["candidates"] = [one | {"item_id": 10**12 + number} for number, one in enumerate(all_new["candidates"])]
    requests = [known, stranger, new_item, all_new]
    with serving(place, tmp_path / "served", "--exploration", "0") as address:
        answers = [post(address, "/rank", request) for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        offered = {candidate["item_id"] for candidate in request["candidates"]}
        assert len(set(answer["items"])) == schema.LIST_LENGTH and set(answer["items"]) <= offered
    fallbacks = [answer["fallback"] for answer in answers]
    assert fallbacks[:3] == [None, UNKNOWN_USER, None], "an unknown user is marked; one new item is ranked by its score"
    assert answers[3]["fallback"] is not None and answers[3]["items"] == by_score(all_new)
    assert answers[2]["model_version"] == "1"
    seen("a real server asked for a user, an item and a whole request never seen", f"200 each, fallbacks {fallbacks}")
