"""The plan of groups: one line over the preset, refused before anything starts where it makes no groups."""

from __future__ import annotations

import pytest

from console.settings import Settings
from goalrank.errors import UsageError
from goalrank.group_plan import Taught, planned, taught_by
from goalrank.policies import REGISTRY, helper_columns
from goalrank.presets import EVERY_STEP, NEVER, PRESETS, Preset, preset

SMALL = preset("small")


def test_nothing_said_is_the_preset() -> None:
    assert all(planned(one, " ") is one for one in PRESETS.values())
    assert all((one.helpers, one.refresh) == ((), EVERY_STEP) for one in PRESETS.values())


@pytest.mark.parametrize("one", PRESETS.values(), ids=PRESETS.keys())
def test_a_presets_groups_hold_the_helpers_that_the_pages_say(one: Preset) -> None:
    """docs/method.md and docs/experiments.md: eight lists are every heuristic but random."""
    heuristics = [policy.name for policy in REGISTRY.values() if not policy.neural and policy.name != "random"]
    assert [policy.name for policy in helper_columns(one.helper_lists, one.helpers)] == heuristics[: one.helper_lists]


def test_what_is_not_said_stays() -> None:
    found = planned(SMALL, "own=2 refresh=50")
    assert (found.on_policy_lists, found.refresh) == (2, 50)
    assert (found.helper_lists, found.helpers, found.name) == (SMALL.helper_lists, (), SMALL.name)
    assert planned(SMALL, "refresh=never").refresh == NEVER
    assert planned(SMALL, "lists=12 own=0").group_size == 12


def test_numbers_of_lists_add_up() -> None:
    found = planned(SMALL, "helpers=random:4,retriever,mmr")
    assert found.helper_lists == 6
    assert [policy.name for policy in helper_columns(6, found.helpers)] == ["retriever", "mmr", *["random"] * 4]
    shared = planned(SMALL, "helpers=random:3,retriever,shown_perturbed lists=7")
    assert [policy.name for policy in helper_columns(shared.helper_lists, shared.helpers)] == [
        "retriever", *["shown_perturbed"] * 3, *["random"] * 3,
    ]  # fmt: skip
    plain = planned(SMALL, "helpers=retriever,random")
    assert plain.helper_lists == SMALL.helper_lists


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("own", "'own' found in group plan 'own', expected words like helpers=retriever,random:4 lists=8 own=8 "),
        ("group=8", "'group=8' found in group plan 'group=8', expected words like"),
        ("own=1 own=2", "own found twice in group plan 'own=1 own=2', expected it once"),
        ("own=-1", "own=-1 found in the group plan, expected a whole number from 0"),
        ("lists=0", "lists=0 found in the group plan, expected a whole number from 1"),
        ("refresh=0", "refresh=0 found in the group plan, expected a whole number from 1, or never"),
        ("refresh=often", "refresh=often found in the group plan, expected a whole number from 1, or never"),
        ("helpers=best", "helper policy 'best' found, expected some of retriever, popularity,"),
        ("helpers=random:0", "helper policy 'random:0' found, expected a number of lists from 1 after the colon"),
        ("helpers=random:2,random", "helper policies random:2, random found, expected each at most once"),
        ("helpers=shown:2", "shown:2 found, expected 1: it is not sampled, so more would be copies"),
        ("helpers=random:4 lists=2", "helper policies random:4 make 4 lists, expected at most 2"),
        ("helpers=random:4,mmr lists=8", "8 helper lists of random:4, mmr found, expected at most 5: none of those"),
        ("lists=1 own=0", "group plan 'lists=1 own=0' makes groups of 1 list, expected 2 or more: one has no rival"),
    ],
)
def test_what_makes_no_groups_is_refused(plan: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        planned(SMALL, plan)
    assert message in str(refused.value)
    with pytest.raises(UsageError):
        Settings(group_plan=plan).require_training()


def test_the_settings_check_preset_and_plan() -> None:
    Settings(group_plan="own=4", objective="temperature=0.5").require_training()
    with pytest.raises(UsageError, match="'heat=1' found in objective 'heat=1', expected words like temperature=0.5"):
        Settings(objective="heat=1").require_training()
    with pytest.raises(UsageError, match="preset 'huge' found"):
        Settings(preset="huge").require_training()


def test_generators_are_told_with_how_long_they_learn() -> None:
    assert taught_by("generators=20 taught=250 own=2") == Taught(20, 250)
    assert taught_by("") == taught_by("own=2") == taught_by("generators=0") == Taught()
    assert planned(SMALL, "generators=20 taught=250") == SMALL  # beside its lists, none of which they replace
    for half in ("generators=20", "taught=250", "generators=0 taught=5", "generators=3 taught=0"):
        for read in (taught_by, lambda plan: planned(SMALL, plan)):
            with pytest.raises(UsageError, match="generators=|taught="):
                read(half)
