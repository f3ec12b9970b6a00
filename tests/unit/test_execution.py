"""Ways of carrying out a run leave what is learnt as it is: passes within a step, bf16, compiled passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from goalrank import train
from goalrank.checkpoint import Checkpoints, read_checkpoint
from goalrank.dataset import TrainingSet
from goalrank.decoding import Draws
from goalrank.dropout import drawn_for
from goalrank.execution import Execution
from goalrank.groups import Groups, build_groups
from goalrank.objective import ObjectiveConfig
from goalrank.processes import Processes
from goalrank.ranker import Ranker
from goalrank.train import new_ranker, train_ranker
from tests.synthetic import make_training_set
from tests.unit.test_train import SHORT, make_reward, same_weights, stop_at

BF16 = Execution(bf16=True)
BF16_TOLERANCE = 0.02
"""Of the loss, relative: bf16 has 8 significant bits, a product of them about 0.4% of error."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = tmp_path_factory.mktemp("data")
    make_training_set(folder, requests=120, candidates=12)
    return TrainingSet.load(folder)


@pytest.fixture(scope="module")
def groups(data: TrainingSet) -> Groups:
    return build_groups(data, data.guide_indices(), make_reward(), SHORT.helper_lists, seed=0)


def gradient_of(data: TrainingSet, groups: Groups, execution: Execution) -> tuple[Tensor, dict[str, Tensor]]:
    """A step's curves and gradients, before clipping, of a ranker with dropout and every term of the loss."""
    preset, reward = replace(SHORT, dropout=0.2), make_reward()
    torch.manual_seed(1)
    ranker = new_ranker(preset, reward)
    objective = ObjectiveConfig(supervised_weight=0.5)
    lesson = train._Lesson(data, groups, ranker, None, None, reward, preset, objective, 6, execution)
    rows_B = torch.arange(16).numpy()
    batch = data.batch(groups.request_R[rows_B])
    draws = Draws.of(torch.Generator().manual_seed(2), 16, preset.on_policy_lists, 6, batch.mask_BN.shape[1])
    parts = []
    for share in execution.shares(16):
        torch.manual_seed(3)
        with drawn_for(share):
            part = train._backward(lesson, rows_B[share.rows], batch.rows(share.rows), draws.rows(share.rows), share)
        parts.append(part)
    return sum(parts), {name: weight.grad for name, weight in ranker.named_parameters()}  # type: ignore[return-value]


@pytest.mark.parametrize("micro_batch", [1, 5, 8])
def test_passes_add_up_to_the_gradient_of_the_whole_batch(micro_batch: int, data: TrainingSet, groups: Groups) -> None:
    curves, whole = gradient_of(data, groups, Execution())
    in_parts, added = gradient_of(data, groups, Execution(micro_batch=micro_batch))
    torch.testing.assert_close(in_parts, curves, rtol=1e-5, atol=1e-6)
    for name, gradient in whole.items():
        torch.testing.assert_close(
            added[name], gradient, rtol=1e-4, atol=2e-6, msg=lambda text, of=name: f"{of}: {text}"
        )


def test_passes_see_as_many_requests_as_allowed(
    data: TrainingSet, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = Ranker.encode
    monkeypatch.setattr(Ranker, "encode", lambda self, batch: seen.append(len(batch)) or encode(self, batch))
    train_ranker(data, groups, make_reward(), replace(SHORT, ranker_steps=1), 0, execution=Execution(micro_batch=6))
    assert max(seen) <= 6 and sum(seen) == 2 * SHORT.batch_requests  # once to sample, once to learn


def test_bf16_learns_as_float32_does_and_keeps_float32(data: TrainingSet, groups: Groups, tmp_path: Path) -> None:
    full = train_ranker(data, groups, make_reward(), SHORT, 7)
    kept = {"checkpoints": Checkpoints(tmp_path)}
    half = train_ranker(data, groups, make_reward(), SHORT, 7, execution=BF16)
    assert not same_weights(half, full)
    for (_, found), (_, expected) in zip(half.curves["loss"], full.curves["loss"], strict=True):
        assert found == pytest.approx(expected, rel=BF16_TOLERANCE)
    with pytest.raises(KeyboardInterrupt):
        train_ranker(data, groups, make_reward(), SHORT, 7, execution=BF16, **kept, progress=stop_at(10))
    stored = read_checkpoint(sorted(tmp_path.glob("*.checkpoint"))[-1]).tensors
    assert {tensor.dtype for name, tensor in stored.items() if not name.startswith("random.")} == {torch.float32}
    resumed = train_ranker(data, groups, make_reward(), SHORT, 7, execution=BF16, **kept)
    assert resumed.resumed_from == 9
    assert same_weights(resumed, half)


def test_a_checkpoint_of_another_precision_is_of_another_run(data: TrainingSet, groups: Groups, tmp_path: Path) -> None:
    kept = {"checkpoints": Checkpoints(tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        train_ranker(data, groups, make_reward(), SHORT, 7, execution=BF16, **kept, progress=stop_at(10))
    assert train_ranker(data, groups, make_reward(), SHORT, 7, **kept).resumed_from == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here, and on a CPU torch.compile takes minutes")
def test_a_gpu_trains_in_bf16_compiled(data: TrainingSet, groups: Groups) -> None:
    """The same lists on every device, since their random numbers come from the CPU."""
    preset = replace(SHORT, dropout=0.0)
    plain = train_ranker(data, groups, make_reward(), preset, 7)
    on_gpu = Execution(Processes(device="cuda"), micro_batch=8, bf16=True, compiled=True)
    trained = train_ranker(data, groups, make_reward(), preset, 7, execution=on_gpu)
    for (_, found), (_, expected) in zip(trained.curves["loss"], plain.curves["loss"], strict=True):
        assert found == pytest.approx(expected, rel=2 * BF16_TOLERANCE)


def test_compiled_passes_learn_the_same(data: TrainingSet, groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured whole as for a GPU, forward and backward, and run without code generation, which takes minutes."""
    asked: list[Any] = []
    compile_ = torch.compile

    def without_code(function: Any) -> Any:
        asked.append(function)
        return compile_(function, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", without_code)
    preset = replace(SHORT, ranker_steps=2, dropout=0.0)
    plain = train_ranker(data, groups, make_reward(), preset, 7, execution=Execution(micro_batch=3))
    assert not asked
    execution = Execution(micro_batch=3, compiled=True)  # six passes: more than it is compiled anew for
    compiled = train_ranker(data, groups, make_reward(), preset, 7, execution=execution)
    assert asked
    for curve, points in plain.curves.items():
        torch.testing.assert_close(torch.tensor(compiled.curves[curve]), torch.tensor(points), rtol=1e-4, atol=1e-5)
