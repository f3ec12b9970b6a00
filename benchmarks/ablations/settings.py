"""How large the studies are, and the arm that every study departs from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.quality.settings import FULL as QUALITY
from benchmarks.quality.settings import QUICK as QUALITY_QUICK
from benchmarks.quality.settings import Scale, Trial, as_tried
from goalrank.presets import preset


@dataclass(frozen=True)
class Size:
    """Of all studies."""

    scale: Scale  # world, requests and preset, in the words of benchmarks/quality
    seeds: int
    measured_groups: int  # training requests on whose groups order and sharpness are measured
    bound_steps: int
    bound_seeds: int
    thin: bool  # only the first and the last of a series of arms


FULL = Size(
    scale=replace(
        QUALITY,
        name="ablations",
        preset=replace(
            preset("small"),
            name="ablations",
            width=32,
            candidate_layers=1,
            item_buckets=4096,
            pretrain_steps=600,
            reward_steps=400,
            ranker_steps=400,
            batch_requests=96,
            learning_rate=2e-3,
        ),
        days=8,
        train_requests=8_000,
        simulated_requests=1_000,
    ),
    seeds=3,
    measured_groups=1_000,
    bound_steps=500,
    bound_seeds=3,
    thin=False,
)

_GOOD = replace(as_tried(QUALITY.preset, Trial(guided=0.8)), name="good-guide")  # as its validation chose
GOOD_GUIDE = replace(FULL, scale=replace(QUALITY, name="good-guide", preset=_GOOD, days=QUALITY.days - 1))
"""With the logs, the sizes and the steps of benchmarks/quality. A day less, so that the requests judged here are those
that choose there, and not those that are reported."""

QUICK = Size(
    scale=replace(
        QUALITY_QUICK,
        name="ablations-quick",
        preset=replace(QUALITY_QUICK.preset, pretrain_steps=8, reward_steps=8, ranker_steps=6, batch_requests=16),
        train_requests=120,
        simulated_requests=40,
        world=(("users", 60), ("items", 80), ("requests_per_day", 60)),
    ),
    seeds=2,
    measured_groups=60,
    bound_steps=30,
    bound_seeds=1,
    thin=True,
)
"""Shows that it runs; its figures mean nothing."""
