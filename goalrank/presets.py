"""Model size and training length, one dial: tiny, small, base, large. Never the data (docs/architecture.md)."""

from __future__ import annotations

from dataclasses import dataclass

from goalrank.errors import UsageError

EVERY_STEP, NEVER = 1, 0
"""Preset.refresh: own lists from the ranker as it is at the step itself, or as it was before its first."""


@dataclass(frozen=True)
class Preset:
    """One value of the dial. Widths are model widths D; lists are per request; steps are optimiser steps."""

    name: str
    # sizes
    width: int
    heads: int
    history_layers: int
    candidate_layers: int
    decoder_layers: int
    reward_layers: int
    item_buckets: int  # rows of the item embedding; ids are hashed into them
    dropout: float
    # history encoder: next-item pretraining
    pretrain_steps: int
    # list-level reward model: an ensemble of heads over one trunk; their spread is its noise estimate
    reward_steps: int
    reward_heads: int
    # groups (what their size is worth: docs/experiments.md, ablations)
    helper_lists: int
    on_policy_lists: int
    # ranker
    ranker_steps: int
    batch_requests: int
    learning_rate: float
    checkpoint_every: int
    # how groups are made; goalrank/group_plan.py changes these and the numbers of lists above
    helpers: tuple[str, ...] = ()  # the mix (policies.helper_columns); none: heuristics, as many as fit
    refresh: int = EVERY_STEP  # steps for which own lists come from one and the same ranker; NEVER: the initial one

    @property
    def group_size(self) -> int:
        """G: helper and on-policy lists of one request together."""
        return self.helper_lists + self.on_policy_lists


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", 16, 2, 1, 1, 1, 1, 2048, 0.0, 30, 240, 2, 6, 2, 120, 64, 3e-3, 40),
        Preset("small", 48, 4, 1, 2, 1, 1, 8192, 0.05, 150, 500, 4, 8, 8, 200, 128, 1e-3, 50),
        Preset("base", 128, 4, 2, 3, 2, 2, 65536, 0.1, 2000, 4000, 4, 8, 8, 4000, 256, 5e-4, 200),
        Preset("large", 512, 8, 4, 8, 4, 4, 1048576, 0.1, 10000, 20000, 4, 8, 8, 20000, 512, 2e-4, 500),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UsageError: no preset is called so.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(f"preset {name!r} found, expected one of {', '.join(PRESETS)}") from None
