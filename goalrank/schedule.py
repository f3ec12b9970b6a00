"""What happens when in a training run, as pure functions of the seed and the step.

Nothing of it is state, so nothing of it needs saving: a resumed run reads the same batches, draws the same numbers and
uses the same learning rates as an undisturbed one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

WARM_UP_SHARE = 0.05
FINAL_RATE = 0.05
"""Learning rate at the last step, as a share of the highest."""

ORDER, STEP, START, HELPERS, OWN = range(5)
"""What a derived seed is for: an epoch's order, a step's dropout and samples, the initial weights, a batch's helpers,
and a request's own lists where they are not drawn anew at every step."""


def derived_seed(seed: int, purpose: int, number: int) -> int:
    """A seed of its own for each purpose and number; neighbouring numbers share nothing."""
    return int(np.random.SeedSequence([seed, purpose, number]).generate_state(1, np.uint64)[0] >> 1)


def batch_rows(requests: int, batch_requests: int, step: int, seed: int) -> np.ndarray:
    """Rows of the groups that step `step` trains on: a part of the epoch's permutation, seeded by (seed, epoch)."""
    size = min(batch_requests, requests)
    epoch, number = divmod(step, requests // size)
    return _epoch_order(requests, epoch, seed)[number * size : (number + 1) * size]


@dataclass(frozen=True)
class Share:
    """Requests `begin` to `end` of a step's batch of `whole`: what one process takes in one pass."""

    begin: int
    end: int
    whole: int

    @property
    def rows(self) -> slice:
        """Of the batch."""
        return slice(self.begin, self.end)

    @property
    def weight(self) -> float:
        """Of the share's means in those of the batch."""
        return (self.end - self.begin) / self.whole


def shares(batch_requests: int, rank: int, count: int, micro_batch: int) -> list[Share]:
    """What process `rank` of `count` does of a batch, in passes of at most `micro_batch` requests (0: in one).

    Every request is in exactly one share of one process; no process is without as long as there are enough requests.
    """
    begin, end = rank * batch_requests // count, (rank + 1) * batch_requests // count
    passes = max(1, -(-(end - begin) // micro_batch)) if micro_batch else 1
    edges = [begin + number * (end - begin) // passes for number in range(passes + 1)]
    return [Share(edges[number], edges[number + 1], batch_requests) for number in range(passes)]


@lru_cache(maxsize=2)
def _epoch_order(requests: int, epoch: int, seed: int) -> np.ndarray:
    """The epoch's permutation, read-only: drawn once, not at each of its steps."""
    order = np.random.default_rng(derived_seed(seed, ORDER, epoch)).permutation(requests)
    order.flags.writeable = False
    return order


def rate_share(step: int, steps: int) -> float:
    """Learning rate at a step as a share of the preset's: linear warm-up, then half a cosine down to FINAL_RATE."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    past = (step - warm_up) / max(1, steps - 1 - warm_up)
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * past))
