"""Several processes train the ranker that one would: they agree, refuse together, and none waits for ever."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from goalrank.checkpoint import Checkpoints
from goalrank.dataset import TrainingSet
from goalrank.decoding import Draws
from goalrank.dropout import drawn_for, dropout, uniform
from goalrank.errors import EXIT_MODEL_REFUSED, EXIT_TRY_AGAIN, EXIT_USAGE, CheckpointDamaged, UsageError
from goalrank.execution import Execution
from goalrank.groups import read_groups
from goalrank.processes import TOLERANCE, TOLERANCE_AFTER_A_TIE, Processes, joined
from goalrank.same_start import arrays_digest, weights_digest
from goalrank.schedule import Share, shares
from goalrank.train import train_ranker
from tests.unit.one_of_several import OTHERS, RUNS, SAMPLED_LONG, SEED, STOP_AT
from tests.unit.test_train import SHORT, make_reward, write_inputs

ROOT = Path(__file__).resolve().parents[2]
COUNT = 2
BEFORE_A_TIE = 10
"""Points of the curves that are the same though runs may part later."""
PARTED = 0.1
"""How far the curves of runs that parted may be from each other, as a share of the way a curve goes: 0.03 was found; of
a run that stops learning after BEFORE_A_TIE steps the loss is off by half."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def started(*arguments: str) -> list[subprocess.Popen[bytes]]:
    """COUNT processes with the environment that torchrun gives."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(COUNT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.unit.one_of_several", *arguments]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(COUNT)
    ]


@pytest.fixture(scope="module")
def together(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together")
    children = started(str(inputs), str(out))
    try:
        for child in children:
            _, errors = child.communicate(timeout=600)
            assert child.returncode == 0, errors.decode()[-3000:]
    finally:
        for child in children:
            child.kill()
    return out


def said(out: Path, rank: int) -> dict[str, Any]:
    return json.loads((out / f"{rank}.json").read_text())


def weights_of_all(out: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights of a run, which must be the same bits in every process."""
    first, *others = (load_file(out / f"{name}-{rank}.safetensors") for rank in range(COUNT))
    assert all(other[key].equal(weight) for other in others for key, weight in first.items())
    assert all(said(out, rank)[name] == said(out, 0)[name] for rank in range(COUNT))
    return first


@pytest.mark.parametrize("name", [*RUNS, "resumed"])
def test_two_processes_end_with_the_weights_of_one(name: str, inputs: Path, together: Path) -> None:
    data, groups = TrainingSet.load(inputs / "training_set"), read_groups(inputs / "groups")
    alone = train_ranker(data, groups, make_reward(), **RUNS.get(name, {"preset": SHORT}), seed=SEED)
    found = weights_of_all(together, name)
    parts = name == SAMPLED_LONG
    for key, weight in alone.ranker.state_dict().items():
        torch.testing.assert_close(found[key], weight, atol=TOLERANCE_AFTER_A_TIE if parts else TOLERANCE, rtol=0)
    for curve, points in alone.curves.items():  # rewards and duplicates too: the lists are the same ones
        shown, expected = torch.tensor(said(together, 0)[name]["curves"][curve]), torch.tensor(points)
        surely = BEFORE_A_TIE if parts else len(expected)
        torch.testing.assert_close(shown[:surely], expected[:surely], atol=1e-4, rtol=1e-4)
        if parts and curve in ("loss", "on_policy_reward", "entropy"):
            way = float(expected[:, 1].max() - expected[:, 1].min())
            torch.testing.assert_close(shown, expected, atol=PARTED * way, rtol=0)


def test_what_one_process_cannot_do_all_refuse(together: Path) -> None:
    for rank in range(COUNT):
        found = said(together, rank)
        refused = found["not a number"]
        assert refused["exit_code"] == EXIT_MODEL_REFUSED and "loss is nan at step 0" in refused["reason"]
        assert found["fewer requests than processes"] == {
            "exit_code": EXIT_USAGE,
            "reason": "2 processes found, but a step has 1 requests; start at most as many",
        }


@pytest.mark.parametrize("what", [*OTHERS, "configuration"])
def test_what_one_process_alone_begins_with_all_refuse(together: Path, what: str) -> None:
    for rank in range(COUNT):
        refused = said(together, rank)[f"another {what}"]
        assert refused["exit_code"] == EXIT_USAGE
        assert f"training process 1 begins with another {what}" in refused["reason"]
        assert "than process 0" in refused["reason"]


def test_digests_tell_one_value_and_one_name_from_another() -> None:
    first, second = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    second.load_state_dict(first.state_dict())
    assert weights_digest(first) == weights_digest(second)
    with torch.no_grad():
        second.weight[0, 0] = torch.nextafter(second.weight[0, 0], torch.tensor(9.0))
    assert weights_digest(first) != weights_digest(second)
    flat = np.arange(6)
    assert arrays_digest([flat]) == arrays_digest([flat.copy()])
    assert len({arrays_digest(given) for given in ([flat], [flat.reshape(2, 3)], [flat[:3], flat[3:]])}) == 3


def test_asked_of_one_all_stop_and_go_on_from_there(together: Path) -> None:
    for rank in range(COUNT):
        found = said(together, rank)
        assert found["stopped"]["exit_code"] == EXIT_TRY_AGAIN
        assert f"asked to stop after step {STOP_AT}" in found["stopped"]["reason"]
        assert found["resumed"]["resumed_from"] == STOP_AT


def test_a_process_that_hangs_is_not_waited_for_for_ever(inputs: Path, tmp_path: Path) -> None:
    children = started(str(inputs), str(tmp_path), "frozen")
    try:
        _, errors = children[0].communicate(timeout=300)
        assert children[0].returncode == EXIT_TRY_AGAIN
        assert b"another process of this training is gone or does not answer" in errors
        assert children[-1].poll() is None
    finally:
        for child in children:
            child.kill()
            child.wait()


# --------------------------------------------------------------------------------------------------- shares of a batch


@pytest.mark.parametrize("micro_batch", [0, 1, 3, 100])
@pytest.mark.parametrize(("requests", "count"), [(1, 1), (64, 2), (17, 3), (5, 5)])
def test_shares_cover_the_batch(requests: int, count: int, micro_batch: int) -> None:
    every = [share for rank in range(count) for share in shares(requests, rank, count, micro_batch)]
    assert [row for share in every for row in range(requests)[share.rows]] == list(range(requests))
    assert sum(share.weight for share in every) == pytest.approx(1.0)
    sizes = [share.end - share.begin for share in every]
    assert min(sizes) >= 1 and (not micro_batch or max(sizes) <= micro_batch)


def test_what_shares_drop_is_what_the_batch_drops() -> None:
    whole = torch.randn(7, 3, 5)

    def dropped(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        requests = len(x)
        first, hidden = dropout(x, 0.3, training=True), uniform(torch.Size([requests, 4]), x.device)
        lists = dropout(x.repeat_interleave(2, dim=0), 0.3, training=True)  # two a request
        return first, hidden, lists.view(requests, 2, 3, 5)

    expected = dropped(whole)
    for begin, end in ((0, 7), (0, 2), (2, 3), (3, 7)):
        with drawn_for(Share(begin, end, 7)):
            found = dropped(whole[begin:end])
        assert all(part.equal(all_of[begin:end]) for part, all_of in zip(found, expected, strict=True))
    assert all(part.equal(all_of) for part, all_of in zip(dropped(whole), expected, strict=True))


def test_draws_are_what_the_generator_gives() -> None:
    generator = torch.Generator().manual_seed(3)
    draws = Draws.of(torch.Generator().manual_seed(3), 4, 2, 3, 5)
    for step in range(3):
        assert draws.uniform_LBGN[step].equal(torch.rand((4, 2, 5), generator=generator))
    assert draws.rows(slice(1, 3)).uniform_LBGN.equal(draws.uniform_LBGN[:, 1:3])


def test_a_single_process_agrees_with_itself() -> None:
    alone = Processes()
    assert alone.first and alone.any(True) and not alone.any(False)
    assert alone.sum(torch.ones(2)).tolist() == [1.0, 1.0]
    assert alone.agreed(5) == 5


@pytest.mark.parametrize(
    "environment", [{"WORLD_SIZE": "2", "RANK": "2"}, {"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": ""}]
)
def test_half_of_torchruns_environment_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="expected what torchrun sets"), joined():
        pass


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as processes:
        assert (processes.rank, processes.count) == (0, 1)


def test_a_checkpoint_that_only_the_first_process_sees(tmp_path: Path) -> None:
    with pytest.raises(CheckpointDamaged, match="give all processes one folder of checkpoints"):
        Checkpoints(tmp_path).at(40)


def test_a_negative_micro_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="micro_batch -1 found"):
        Execution(micro_batch=-1)
