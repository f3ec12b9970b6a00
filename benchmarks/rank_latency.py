"""Time to rank one request: `python -m benchmarks.rank_latency [--quick] [--json FILE]`.

One request of 50 candidates and a full history, one list of 6, one thread, preset base, untrained weights (time does
not depend on them): greedy decoding with cached keys and values (goalrank/ranker.py) against

    encoded once, no cache  each position a decoder pass over the items before it
    re-encoding             each position an encoding of its own besides: the authors' way; at most 6 times slower
    G-E, 100 lists          generator and list-level reward model of goalrank/baselines/g_e.py, an encoder each
    G-E, drawn at once      the same, its lists drawn in one go and not one by one as there
    G-E, encoder shared     moreover, as if the evaluator's encoding were the generator's too: nobody trained such a one

The ways take turns, BLOCK requests each, as a server goes on with one model; from a batch of features to the list,
without reading features or the network. Claims are of CPU time, which on one thread is the clock's on an idle machine:
long calls are interrupted more often than short ones, so the clock of a busy machine would favour ours. Neighbours that
empty the caches still cost short calls relatively more; p5 is what remains when they rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.random_requests import random_requests
from benchmarks.reencoding import reencoded_greedy, stepwise_greedy
from benchmarks.report import Claim, Row, claim, progress, run
from goalrank.baselines import g_e
from goalrank.dataset import RequestBatch
from goalrank.encoders import ModelSizes, z_scored
from goalrank.policies import PERTURBATION_TEMPERATURE, gumbel, top_lists
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.schema import LIST_LENGTH

CANDIDATES = 50
LISTS = g_e.PROPOSALS
BLOCK = 8

OURS, NO_CACHE, REENCODING = "encoded once, cached", "encoded once, no cache", "re-encoding"
G_E, G_E_AT_ONCE, G_E_SHARED = "G-E, 100 lists", "G-E, drawn at once", "G-E, encoder shared"
ENCODING = "one encoding alone"

TARGETS = {REENCODING: 4.0, G_E: 5.0, G_E_AT_ONCE: 5.0}


@dataclass(frozen=True)
class Case:
    """How much is measured."""

    preset: str = "base"
    calls: int = 3_000
    requests: int = 64  # different ones, in turn
    warm_up: int = 20


FULL = Case()
QUICK = Case(calls=150)


def proposals(score_BN: Tensor, mask_BN: Tensor, chance: torch.Generator) -> Tensor:
    """LISTS lists_BGL as GeneratorEvaluator.propose makes them: the best by score, then samples around it."""
    score_BN = z_scored(score_BN, mask_BN)
    noise = gumbel((len(score_BN), LISTS - 1, score_BN.shape[1]), chance, score_BN.device)
    noisy = score_BN.unsqueeze(1) / PERTURBATION_TEMPERATURE + noise
    score_XN = torch.cat([score_BN.unsqueeze(1), noisy], dim=1).flatten(0, 1)
    return top_lists(score_XN, mask_BN.repeat_interleave(LISTS, dim=0), LIST_LENGTH).unflatten(0, (-1, LISTS))


def ways_of(case: Case) -> dict[str, Callable[[RequestBatch], Tensor]]:
    """What is compared, each from a batch to its lists_BL (the encoding alone: to its candidates)."""
    torch.manual_seed(0)
    sizes = ModelSizes.from_preset(preset(case.preset))
    ranker, rival, chance = Ranker(sizes).eval(), g_e.GeneratorEvaluator(sizes).eval(), torch.Generator().manual_seed(0)
    heads, evaluator = rival.generators, rival.evaluator

    def at_once(batch: RequestBatch) -> Tensor:
        lists_BGL = proposals(heads.scores(batch)[:, 0], batch.mask_BN, chance)
        best_B = evaluator.reward(evaluator.encode(batch), lists_BGL).argmax(dim=1)
        return lists_BGL[torch.arange(len(best_B)), best_B]

    def shared(batch: RequestBatch) -> Tensor:
        encoded = evaluator.encode(batch)
        hidden_BNW = (encoded.candidates_BND @ heads.weight_KDW[0] + heads.bias_KW[0]).relu()
        lists_BGL = proposals(hidden_BNW @ heads.out_KW[0] + heads.offset_K[0], batch.mask_BN, chance)
        best_B = evaluator.reward(encoded, lists_BGL).argmax(dim=1)
        return lists_BGL[torch.arange(len(best_B)), best_B]

    return {
        OURS: lambda batch: ranker.greedy(ranker.encode(batch), LIST_LENGTH),
        NO_CACHE: lambda batch: stepwise_greedy(ranker, ranker.encode(batch), LIST_LENGTH),
        REENCODING: lambda batch: reencoded_greedy(ranker, batch, LIST_LENGTH),
        G_E: lambda batch: rival.rank(batch, LIST_LENGTH),
        G_E_AT_ONCE: at_once,
        G_E_SHARED: shared,
        ENCODING: lambda batch: ranker.encode(batch).candidates_BND,
    }


@torch.inference_mode()
def measure(case: Case) -> tuple[list[Row], list[Claim]]:
    """The table and its claims."""
    ways = ways_of(case)
    chance = torch.Generator().manual_seed(1)
    requests = [random_requests(1, CANDIDATES, chance) for _ in range(case.requests)]
    same = {way: all(ways[way](batch).equal(ways[OURS](batch)) for batch in requests) for way in (NO_CACHE, REENCODING)}
    for _ in range(case.warm_up):
        for call in ways.values():
            call(requests[0])
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    clock: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for block in range(case.calls // BLOCK):
        turn = block % len(order)
        for way in order[turn:] + order[:turn]:
            call = ways[way]
            for number in range(block * BLOCK, (block + 1) * BLOCK):
                batch = requests[number % len(requests)]
                begun_clock, begun = time.perf_counter(), time.thread_time()
                call(batch)
                cpu[way].append(time.thread_time() - begun)
                clock[way].append(time.perf_counter() - begun_clock)
        progress(f"{(block + 1) * BLOCK} of {case.calls} requests")

    rows, claims = [], []
    ours = np.percentile(cpu[OURS], [5, 50, 99])
    for way in ways:
        least, middle, tail = np.percentile(cpu[way], [5, 50, 99])
        row: Row = {
            "way": way,
            "p5_ms": 1e3 * least,
            "p50_ms": 1e3 * middle,
            "p99_ms": 1e3 * tail,
            "p5_ratio": least / ours[0],
            "p50_ratio": middle / ours[1],
            "p99_ratio": tail / ours[2],
            "clock_p50_ms": 1e3 * np.percentile(clock[way], 50),
            "clock_p99_ms": 1e3 * np.percentile(clock[way], 99),
        }
        rows.append({name: value if name == "way" else float(value) for name, value in row.items()})
        if way in same:
            rows[-1]["same_lists"] = same[way]
            claims.append(claim(f"{way}: same lists", float(same[way]), "at least", 1.0))
        if way == REENCODING:
            rows[-1]["bound"] = LIST_LENGTH  # were everything but encoding free
        if way in TARGETS:
            claims.append(claim(f"times faster than {way}, p50", rows[-1]["p50_ratio"], "at least", TARGETS[way]))
    return rows, claims


def rows_of(quick: bool) -> tuple[list[Row], list[Claim]]:
    """On one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(QUICK if quick else FULL)
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    run("rank_latency", rows_of, __doc__ or "")
