"""How groups are made where not as the preset says, in one line: `helpers=retriever,mmr,random:4 own=8 refresh=50`.

    helpers   the mix of helper policies, each with the number of its lists or without (policies.helper_columns)
    lists     helper lists of a group
    own       lists of the ranker in training; 0: none, groups are the helpers' alone
    generators  light rankers that learn from the logged feedback and propose a list each, beside `lists`; 0: none
    taught    optimiser steps that they learn for
    refresh   steps for which own lists come from one and the same ranker: 1 (anew at every step), 50, ..., or `never`,
              from the ranker before its first step: the same lists whenever a request comes by

What is not named stays the preset's. Groups of own lists alone are for benchmarks: a night holds its groups against
what helpers proposed, so it has at least one helper list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from goalrank.errors import UsageError
from goalrank.policies import helper_columns, shares_of
from goalrank.presets import NEVER, Preset
from goalrank.worded import read_words

KEYS = ("helpers", "lists", "own", "refresh", "generators", "taught")
_NEVER = "never"


@dataclass(frozen=True)
class Taught:
    """Light rankers among the helpers (goalrank/taught_helpers.py)."""

    generators: int = 0
    steps: int = 0


def taught_by(plan: str) -> Taught:
    """What the plan says of generators; none of them where it says nothing.

    Raises:
        UsageError: the plan cannot be read, or names one of `generators` and `taught` without the other.
    """
    said = _read(plan)
    count = _number("generators", said.get("generators", "0"), 0)
    if (count > 0) != ("taught" in said):
        raise UsageError(
            f"group plan {plan!r} found, expected generators=N and taught=STEPS together; leave both out for none"
        )
    return Taught(count, _number("taught", said["taught"], 1)) if count else Taught()


def planned(preset: Preset, plan: str) -> Preset:
    """The preset with its groups made as the plan says; as it is where the plan says nothing.

    Where a helper's lists are numbered and `lists` is not said, the numbers add up to it, the others counting one each.

    Raises:
        UsageError: the plan cannot be read, a policy is unknown, the lists do not add up, or a group would have fewer
            than two lists.
    """
    said = _read(plan)
    if not said:
        return preset
    taught_by(plan)  # refuses what does not fit together
    mix = tuple(name for name in said.get("helpers", "").split(",") if name) or preset.helpers
    numbered = "helpers" in said and any(":" in name for name in mix)
    if "lists" in said:
        lists = _number("lists", said["lists"], 1)
    else:
        lists = sum(count or 1 for count in shares_of(mix).values()) if numbered else preset.helper_lists
    own = _number("own", said["own"], 0) if "own" in said else preset.on_policy_lists
    refresh = preset.refresh
    if "refresh" in said:
        refresh = NEVER if said["refresh"] == _NEVER else _number("refresh", said["refresh"], 1)
    helper_columns(lists, mix)  # refuses what does not add up, before a night has begun
    if lists + own < 2:
        raise UsageError(
            f"group plan {plan!r} makes groups of {lists + own} list, expected 2 or more: one has no rival"
        )
    return replace(preset, helpers=mix, helper_lists=lists, on_policy_lists=own, refresh=refresh)


def _read(plan: str) -> dict[str, str]:
    return read_words(plan, KEYS, "group plan", "helpers=retriever,random:4 lists=8 own=8 refresh=1")


def _number(key: str, value: str, least: int) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < least:
        also = f", or {_NEVER}" if key == "refresh" else ""
        raise UsageError(f"{key}={value} found in the group plan, expected a whole number from {least}{also}")
    return int(value)
