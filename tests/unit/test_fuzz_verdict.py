"""Thousands of broken verdicts: the reader refuses them in its own words, and takes none that means something else.

GOALRANK_FUZZ_EXAMPLES=20000 makes a longer run with other inputs each time; by default they are always the same.
"""

from __future__ import annotations

import copy
import json
import math
import os
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalrank import verdict as v
from goalrank.errors import ModelRefused
from goalrank.verdict import thresholds as at
from goalrank.verdict.consistency import AGAINST_CHAMPION, ALWAYS_ASKED, FIRST_NIGHT, SERVED
from tests.unit.test_verdict import CHALLENGER, NIGHT, decide, rewards

ASKED = os.environ.get("GOALRANK_FUZZ_EXAMPLES")
FUZZ = settings(
    max_examples=int(ASKED or 1500),
    derandomize=ASKED is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)


def _serving(failed: bool) -> v.ServingVerdict:
    checks = [v.Check(name=name, value=0.0, threshold=0.0, status="passed") for name in SERVED]
    if failed:
        checks[3] = checks[3].model_copy(update={"value": 2.0, "status": "failed"})
    return v.ServingVerdict(
        format=v.FORMAT,
        kind="serving",
        model=CHALLENGER,
        **NIGHT,
        decision="refuse" if failed else "pass",
        reason="two lists differ" if failed else "20 logged requests answered as offline",
        judged_at=v.judged_now(),
        checks=checks,
        requests=20,
    )


VALID = {
    "promoted": decide(rewards(0.5, 0.3)),
    "kept": decide(rewards(0.5, 0.0)),
    "first": decide(rewards(0.5, None), champion=None, allow_bootstrap=True),
    "not finite": decide(rewards(0.5, 0.2), metrics={"challenger": {"ndcg": math.nan}, "champion": {"ndcg": 0.3}}),
    "served": _serving(failed=False),
    "not served": _serving(failed=True),
}
"""Sound verdicts of every kind, made as the steps make them."""

BUDGETS = ("latency", "size")
DOCUMENTS = {name: json.loads(v.to_json(verdict)) for name, verdict in VALID.items()}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from(
        [1e308, -0.0, 10**400, 2**63, "", "promote", "pass", "passed", "8", "2026-01-08", "../x", "\ud800"]
    ),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdict") / "verdict.json"


def read(path: Path, text: bytes, kind: str) -> Any:
    """What the reader makes of it; None where it refuses. Any other error goes through and fails the test."""
    path.write_bytes(text)
    try:
        return v.load_verdict(path, kind)  # type: ignore[call-overload]
    except ModelRefused as refused:
        assert str(path) in str(refused), "a refusal names the file"
        return None


def meaning(document: Any) -> Any:
    """A document with what may be left out put in."""
    if isinstance(document, dict):
        filled = {name: meaning(value) for name, value in document.items()}
        if {"name", "status", "threshold"} <= filled.keys():
            filled.setdefault("detail", "")
        return filled
    return [meaning(value) for value in document] if isinstance(document, list) else document


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys all stand once: which of two values was meant nobody can say."""
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), f"taken although a key stands twice: {names}"
    return dict(pairs)


def finite(document: Any) -> bool:
    if isinstance(document, dict):
        return all(map(finite, document.values()))
    if isinstance(document, list):
        return all(map(finite, document))
    return not isinstance(document, float) or math.isfinite(document)


def assert_sound(found: Any, text: bytes, kind: str) -> None:
    """What was taken is what is written there, and a yes is a whole yes: said here in other words than the reader's."""
    written = json.loads(text, object_pairs_hook=once)
    assert meaning(written) == json.loads(v.to_json(found)), "something else was read than is written there"
    assert finite(written) and written["kind"] == kind and written["format"] == v.FORMAT
    names = [check["name"] for check in written["checks"]]
    assert len(set(names)) == len(names) > 0
    if written["decision"] in ("promote", "pass"):
        assert {check["status"] for check in written["checks"]} <= {"passed", "not_applicable"}
    if written["decision"] == "promote":
        asked = {*ALWAYS_ASKED, *(AGAINST_CHAMPION if written["champion"] else FIRST_NIGHT)}
        assert asked <= set(names)
        assert written["difference"]["low"] > (at.SUPERIORITY if written["champion"] else at.FLOOR)
        assert written["thresholds"].items() >= {"superiority": at.SUPERIORITY, "floor": at.FLOOR}.items()
        values = {check["name"]: check["value"] for check in written["checks"]}
        assert values["finite"] == 0 and values["users"] >= at.MINIMUM_USERS and values["floor"] > at.FLOOR
        assert all(check["value"] <= check["threshold"] for check in written["checks"] if check["name"] in BUDGETS)
    if written["decision"] == "pass":
        assert written["requests"] > 0 and set(SERVED) <= set(names)
        assert {check["value"] for check in written["checks"]} == {0}
    about = [written["model"][name] for name in ("name", "version", "weights_sha256")]
    mine = [CHALLENGER.name, CHALLENGER.version, CHALLENGER.weights_sha256]
    if (about, written["snapshot_id"], written["date"]) == (mine, NIGHT["snapshot_id"], NIGHT["date"]):
        v.require_about(found, CHALLENGER, **NIGHT)
    else:
        with pytest.raises(ModelRefused, match="about something else"):
            v.require_about(found, CHALLENGER, **NIGHT)


def places(document: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every value in a document."""
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for name, value in inside:
        found.append((*before, name))
        if isinstance(value, dict | list):
            found += places(value, (*before, name))
    return found


@st.composite
def altered(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sound verdict with one to three values deleted, replaced, added, doubled or put elsewhere."""
    name = draw(st.sampled_from(sorted(DOCUMENTS)))
    document = copy.deepcopy(DOCUMENTS[name])
    for _ in range(draw(st.integers(1, 3))):
        all_places = places(document)
        *way, last = draw(st.sampled_from(all_places))
        holder = document
        for key in way:
            holder = holder[key]
        change = draw(st.sampled_from(["delete", "replace", "nudge", "add", "double", "transplant"]))
        if change == "delete":
            del holder[last]
        elif change == "replace":
            holder[last] = draw(VALUES)
        elif change == "nudge" and isinstance(holder[last], int | float) and not isinstance(holder[last], bool):
            holder[last] = draw(st.sampled_from([-holder[last], holder[last] + 1, holder[last] * 1e9, 0, 0.5]))
        elif change == "nudge" and isinstance(holder[last], str):
            holder[last] = draw(st.sampled_from([holder[last].upper(), holder[last] + " ", holder[last][:-1], "keep"]))
        elif change == "add" and isinstance(holder, dict):
            holder[draw(st.text(string.ascii_lowercase, max_size=6))] = draw(VALUES)
        elif change == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        elif change == "transplant":
            other = copy.deepcopy(document)
            for key in draw(st.sampled_from(all_places)):
                try:
                    other = other[key]
                except (KeyError, IndexError, TypeError):
                    break
            holder[last] = other
        if not document:
            break
    return name, json.dumps(document).encode()


@st.composite
def torn(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sound verdict's text, cut, flipped, doubled or spliced byte by byte."""
    name = draw(st.sampled_from(sorted(DOCUMENTS)))
    text = bytearray(v.to_json(VALID[name]).encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        change = draw(st.sampled_from(["cut", "flip", "put", "remove", "repeat", "line", "number"]))
        if change == "cut":
            del text[at:]
        elif change == "flip" and text:
            text[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "put":
            text[at:at] = draw(
                st.binary(max_size=6) | st.sampled_from([b"NaN", b"Infinity", b"1e999", b"-", b"[" * 9, b'"'])
            )
        elif change == "remove":
            del text[at : at + draw(st.integers(1, 30))]
        elif change == "repeat":
            text[at:at] = text[at : at + draw(st.integers(1, 60))]
        elif change == "line":  # a whole line twice: where it holds a key, that key stands twice
            begin, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at) + 1
            text[begin:begin] = text[begin:end]
        else:  # the next digit becomes another number
            digit = next((place for place in range(at, len(text)) if chr(text[place]).isdigit()), None)
            if digit is not None:
                text[digit : digit + 1] = draw(st.sampled_from([b"9", b"1e999", b"0", b"-1", b"NaN", b"9" * 5000]))
    return name, bytes(text)


def kind_of(name: str) -> str:
    return DOCUMENTS[name]["kind"]


@FUZZ
@given(altered())
def test_an_altered_verdict_is_refused_or_means_what_it_says(path: Path, case: tuple[str, bytes]) -> None:
    name, text = case
    found = read(path, text, kind_of(name))
    if found is not None:
        assert_sound(found, text, kind_of(name))


@FUZZ
@given(torn())
def test_a_torn_verdict_is_refused_or_means_what_it_says(path: Path, case: tuple[str, bytes]) -> None:
    name, text = case
    found = read(path, text, kind_of(name))
    if found is not None:
        assert_sound(found, text, kind_of(name))


@FUZZ
@given(
    st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["evaluation", "serving"]),
)
def test_anything_else_is_refused(path: Path, text: bytes, kind: str) -> None:
    assert read(path, text, kind) is None


@pytest.mark.parametrize("name", VALID)
def test_a_sound_verdict_is_taken_as_its_own_kind_only(path: Path, name: str) -> None:
    text = v.to_json(VALID[name]).encode()
    found = read(path, text, kind_of(name))
    assert found == VALID[name]
    assert_sound(found, text, kind_of(name))
    other = "serving" if kind_of(name) == "evaluation" else "evaluation"
    assert read(path, text, other) is None


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b'{"a":' * 50_000, b" " * (v.MAXIMUM_BYTES + 1), b"9" * 5000])
def test_bombs_are_refused(path: Path, text: bytes) -> None:
    assert read(path, text, "evaluation") is None
    assert read(path, text, "serving") is None
