"""The teacher-forced training step on a GPU: float32, bf16 and bf16 compiled, and what share of the GPU's bf16 peak the
model's arithmetic gets (model FLOPs utilisation, as PaLM's authors define it, arXiv 2204.02311, appendix B):
`python -m benchmarks.gpu_step`, and part of benchmarks/train_step.py where there is a GPU.

`model_utilisation` leaves out clipping and optimiser, which go over all weights, most of them the item embedding's,
whatever the batch: no arithmetic of the model's, and the same bytes for eight requests as for a thousand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.devices import require
from benchmarks.ranker_steps import OBJECTIVE, OURS, Work, backward, fresh, optimizer_of
from benchmarks.report import Claim, Row, claim, progress, run
from goalrank.objective import group_relative_loss
from goalrank.presets import preset
from goalrank.ranker import Ranker
from goalrank.train import CLIP_NORM

PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""Dense bf16 operations a second, from the makers' data sheets, by a part of the device's name; the first that fits."""

GOAL = 0.40
WARM_UP, TIMED, COUNTED = 5, 20, 4  # steps, steps, requests


@dataclass(frozen=True)
class Case:
    """One row."""

    preset: str
    bf16: bool
    compiled: bool
    batches: int = 1  # requests a step, in the preset's own batches


MODES = ((False, False), (True, False), (True, True))
CASES = [Case(name, *mode) for name in ("base", "large") for mode in MODES]
CASES += [Case("base", True, True, 8), Case("large", True, True, 2)]
"""At larger batches too: how much of what is missing is too little work at once."""


def model_flops(ranker: Ranker, work: Work) -> float:
    """Floating-point operations of the matrix products of one step, forward and backward, an add and a multiply as two.

    Counted with attention as plain matrix products, since not every fused kernel is known to the counter.
    """
    ranker.zero_grad(set_to_none=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        backward(OURS, ranker, work)
    ranker.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


@lru_cache
def _flops_of_a_request(name: str) -> float:
    return model_flops(fresh(name)[0], Work.drawn(COUNTED)) / COUNTED


def peak_bf16(device_name: str) -> float | None:
    """The device's peak, None if its name is not known here."""
    return next((peak for part, peak in PEAK_BF16.items() if part in device_name), None)


def training_step(ranker: Ranker, work: Work, case: Case) -> Callable[..., Tensor]:
    """A call that takes one optimiser step and gives its loss; with update=False it ends with the gradients."""
    device = work.lists_BGL.device.type
    optimizer = optimizer_of(ranker, preset(case.preset).learning_rate)

    def loss_of(work: Work) -> Tensor:
        log_prob_BG, _ = ranker.log_prob(ranker.encode(work.batch), work.lists_BGL)
        return group_relative_loss(log_prob_BG, work.rewards_BG, work.mask_BG, work.weight_B, OBJECTIVE)

    computed = torch.compile(loss_of) if case.compiled else loss_of

    def step(update: bool = True) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16) if case.bf16 else nullcontext():
            loss = computed(work)
        loss.backward()
        if update:
            nn.utils.clip_grad_norm_(ranker.parameters(), CLIP_NORM)
            optimizer.step()
        return loss.detach()

    return step


def measure(case: Case, requests: int, device: str) -> Row:
    """One row of the table."""
    ranker, _ = fresh(case.preset)
    flops = _flops_of_a_request(case.preset) * requests
    ranker.to(device)
    step = training_step(ranker, Work.drawn(requests).to(device), case)
    for _ in range(WARM_UP):
        loss = step()
    seconds = _seconds_of(step, device)
    passes = _seconds_of(lambda: step(update=False), device)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    row: Row = {
        "preset": case.preset,
        "way": OURS + (", bf16" if case.bf16 else "") + (", compiled" if case.compiled else ""),
        "device": name,
        "requests": requests,
        "batches": case.batches,
        "step_ms": 1e3 * seconds,
        "passes_ms": 1e3 * passes,
        "lists_s": Work.drawn(1).lists * requests / seconds,
        "tflop_s": flops / seconds / 1e12,
        "loss": float(loss),
    }
    peak = peak_bf16(name)
    if peak is not None:
        row["utilisation"] = flops / seconds / peak
        row["model_utilisation"] = flops / passes / peak
    if device == "cuda":
        row["memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return row


def gpu_rows() -> tuple[list[Row], list[Claim]]:
    """Rows of the GPU at hand, and claims of the presets' own batches."""
    rows, claims = [], []
    for case in CASES:
        progress(f"{case} on the GPU")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        rows.append(measure(case, preset(case.preset).batch_requests * case.batches, "cuda"))
    for name in ("base", "large"):
        own = [row for row in rows if row["preset"] == name and row["batches"] == 1]
        found = [row["utilisation"] for row in own if "utilisation" in row]
        if found:
            claims.append(claim(f"{name}: model FLOPs utilisation", max(found), "at least", GOAL))
    return rows, claims


def _seconds_of(call: Callable[[], object], device: str) -> float:
    """The mean of TIMED calls."""
    _wait(device)
    begun = time.perf_counter()
    for _ in range(TIMED):
        call()
    _wait(device)
    return (time.perf_counter() - begun) / TIMED


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _rows_of(_: bool) -> tuple[list[Row], list[Claim]]:
    require("cuda")
    return gpu_rows()


if __name__ == "__main__":
    run("gpu_step", _rows_of, __doc__ or "")
