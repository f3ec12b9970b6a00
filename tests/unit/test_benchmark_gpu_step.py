"""The GPU's step runs (on the CPU, where there is no other), and its arithmetic is counted rightly."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_step
from benchmarks.ranker_steps import OURS, Work, fresh, log_prob
from goalrank.ranker import Ranker


def loss_without_autocast(ranker: Ranker, work: Work) -> float:
    return float((work.coefficient_BG() * log_prob(OURS, ranker, work)).sum())


@pytest.mark.parametrize("bf16", [False, True])
def test_the_step_of_a_gpu_runs(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "TIMED", 1)
    monkeypatch.setattr(gpu_step, "WARM_UP", 1)
    row = gpu_step.measure(gpu_step.Case("tiny", bf16, compiled=False), requests=4, device="cpu")
    plain, _ = fresh("tiny")
    work = Work.drawn(4)
    with torch.no_grad():
        before = loss_without_autocast(plain, work)
    assert row["loss"] == pytest.approx(before, rel=0.05)  # after one step
    assert "utilisation" not in row and row["tflop_s"] > 0


def test_flops_grow_with_requests_and_count_what_the_layers_multiply() -> None:
    ranker, _ = fresh("tiny")
    one, three = (gpu_step.model_flops(ranker, Work.drawn(requests)) for requests in (1, 3))
    assert three == pytest.approx(3 * one, rel=0.01)
    sizes = ranker.sizes
    tokens = 50 * (sizes.history_layers + 1 + sizes.candidate_layers) + 120 * sizes.decoder_layers
    layers = tokens * 2 * 8 * sizes.width**2  # multiply and add; four square matrices and a perceptron twice as wide
    assert 3 * layers < one < 3 * 3 * layers  # a backward pass is two forward ones; attention and inputs come on top


def test_only_the_presets_own_batch_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {1: 0.1, 2: 0.7, 8: 0.9}

    def measured(case: gpu_step.Case, requests: int, device: str) -> dict[str, object]:
        return {"preset": case.preset, "batches": case.batches, "utilisation": used[case.batches]}

    monkeypatch.setattr(gpu_step, "measure", measured)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    rows, claims = gpu_step.gpu_rows()
    assert {row["batches"] for row in rows} == set(used)
    assert [made["value"] for made in claims] == [used[1], used[1]]


def test_peaks_of_devices() -> None:
    assert gpu_step.peak_bf16("NVIDIA H100 80GB HBM3") == 989e12
    assert gpu_step.peak_bf16("NVIDIA H100 PCIe") == 756e12
    assert gpu_step.peak_bf16("NVIDIA L40S") == 362e12 and gpu_step.peak_bf16("NVIDIA L4") == 121e12
    assert gpu_step.peak_bf16("cpu") is None
