"""Ranker training is killed at 50 seeded points, checkpoints are damaged in between; it ends with the same weights.

Four chains of training, each killed and started again until its kills are spent, then left to end. What an attempt must
resume from is worked out from the files before it starts, and compared with what it says.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from components.generate_groups.main import run as generate_groups
from goalrank.checkpoint import Checkpoints, read_checkpoint, read_model_card, save_model
from goalrank.encoders import ModelSizes
from goalrank.errors import EXIT_TRY_AGAIN, CheckpointDamaged
from goalrank.presets import preset
from goalrank.reward import RewardModel
from tests.faults.conftest import Seen
from tests.synthetic import make_training_set

ROOT = Path(__file__).resolve().parents[2]
SEED = 11
KILLS = 50
CHAINS = 4
EVERY = 4
"""Steps between two checkpoints: often, so that most kills fall near one."""

AT_A_CHECKPOINT = ("half written", "written, not synced", "synced, not renamed", "renamed", "old one dropped")
AT_THE_END = ("model half written", "between weights and card")
DAMAGES_A_CHAIN = 3


@dataclass(frozen=True)
class Kill:
    """One point: where in the code, at which training step, by which signal; and whether the newest file is damaged."""

    where: str
    step: int
    signal: signal.Signals
    seconds: float  # from the first sign of progress, for kills from outside ("nowhere")
    damage: str = ""


@dataclass
class Ended:
    """What a chain came to."""

    folder: Path
    killed: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    resumed_from: list[int] = field(default_factory=list)


def seeded_kills(chance: random.Random, count: int) -> list[Kill]:
    """`count` points in the order of their steps; the last two fall into the writing of the model."""
    steps = preset("tiny").ranker_steps
    kills = []
    marks = sorted(chance.uniform(0, 1) for _ in range(count - len(AT_THE_END)))
    for mark in marks:
        step = 1 + int(mark * (steps - 2))
        where = chance.choice(("in the step", "nowhere", "nowhere", "nowhere", *AT_A_CHECKPOINT))
        if where in AT_A_CHECKPOINT:
            step = min(-(-step // EVERY) * EVERY, steps - EVERY)
        by = chance.choice((signal.SIGKILL, signal.SIGTERM))
        kills.append(Kill(where, step, by, chance.uniform(0, 0.2)))
    kills += [Kill(where, steps, signal.SIGKILL, 0.0) for where in AT_THE_END]
    for number in chance.sample(range(2, len(kills) - 1), DAMAGES_A_CHAIN):
        kills[number] = replace(kills[number], damage=chance.choice(("truncated", "flipped")))
    return kills


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_training_set(folder / "training_set", requests=120, candidates=12)
    torch.manual_seed(0)
    model = RewardModel(ModelSizes.from_preset(preset("tiny")))
    save_model(folder / "reward", model, "reward", model.sizes.to_dict(), {}, {})
    paths = (folder / name for name in ("training_set", "reward", "groups"))
    generate_groups(*map(str, paths), preset="tiny", seed=SEED, run_uri=str(folder / "run"))
    return folder


def started(inputs: Path, out: Path, kill: Kill | None) -> subprocess.Popen[bytes]:
    """train_ranker in a process of its own, to be killed or not."""
    death = {"where": kill.where if kill else "nowhere", "step": kill.step if kill else 0, "every": EVERY}
    command = [
        sys.executable,
        "-m",
        "tests.faults.killed_training",
        json.dumps(death | {"signal": kill and kill.signal}),
    ]
    flags = {
        "training-set": inputs / "training_set",
        "groups": inputs / "groups",
        "reward-model": inputs / "reward",
        "ranker": out / "ranker",
        "checkpoints-uri": out / "checkpoints",
        "preset": "tiny",
        "seed": SEED,
        "run-uri": out / "run",
    }
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    # One thread each, two side by side; sums split over another number of threads may differ in their last bit.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def attempt(inputs: Path, out: Path, kill: Kill | None) -> int:
    """One attempt, killed as told; its exit status."""
    seen_before = len(events(out))
    child = started(inputs, out, kill)
    if kill is not None and kill.where == "nowhere":
        deadline = time.monotonic() + 120
        while not any(event["event"] == "progress" for event in events(out)[seen_before:]):
            if child.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        time.sleep(kill.seconds)
        child.send_signal(kill.signal)
    _, errors = child.communicate(timeout=200)
    status = child.returncode
    assert status in (0, -signal.SIGKILL, -signal.SIGTERM, EXIT_TRY_AGAIN), errors.decode()[-2000:]
    return status


def events(out: Path) -> list[dict]:
    """What the component said of its progress; a line cut short by a kill is not one."""
    found = []
    progress = out / "run/progress.jsonl"
    for line in progress.read_text().splitlines() if progress.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def sound_step(folder: Path) -> int:
    """The step of the newest file that reads as a whole checkpoint; 0 for none."""
    for path in sorted(folder.glob("step-*.checkpoint"), reverse=True):
        try:
            return read_checkpoint(path).step
        except CheckpointDamaged:
            continue
    return 0


def damage(path: Path, how: str, chance: random.Random) -> None:
    """Cut a file at a seeded place, or flip one seeded bit of it."""
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    if how == "truncated":
        del content[at:]
    else:
        content[at] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def still_ahead(kill: Kill, resumed: int) -> Kill:
    """The kill, moved on where training is past its step already: SIGTERM and the clock let it go further."""
    steps = preset("tiny").ranker_steps
    where, step = kill.where, max(kill.step, resumed + 1)
    if where in AT_A_CHECKPOINT:
        step = -(-step // EVERY) * EVERY
    late = step >= steps or (where == "nowhere" and resumed > steps - 60)  # it might end before the clock does
    if late and where not in AT_THE_END:
        where, step = "in the step", min(resumed + 1, steps)
    return replace(kill, where=where, step=step)


def live_through(inputs: Path, out: Path, number: int) -> Ended:
    """One chain: each kill in turn, then an attempt that ends. Every attempt must resume from the newest sound file."""
    chance = random.Random(SEED * 1000 + number)
    count = KILLS // CHAINS + (number < KILLS % CHAINS)
    ended = Ended(out)
    for kill in [*seeded_kills(chance, count), None]:
        files = sorted((out / "checkpoints").glob("step-*.checkpoint"))
        if kill and kill.damage and len(files) >= 2:
            before = sound_step(out / "checkpoints")
            damage(files[-1], kill.damage, chance)
            assert sound_step(out / "checkpoints") < before
            ended.damaged += 1
        expected, begun = sound_step(out / "checkpoints"), len(events(out))
        kill = kill and still_ahead(kill, expected)
        status = attempt(inputs, out, kill)
        first = next((event for event in events(out)[begun:] if event["event"] == "progress"), None)
        if first is not None:
            assert first["done"] == expected + 1, f"resumed from {first['done'] - 1}, newest sound is {expected}"
            ended.resumed_from.append(expected)
        if kill is None:
            assert status == 0
        else:
            assert status != 0, f"{kill} came too late"
            assert not (out / "ranker/model.json").exists(), "a model without its whole training"
            ended.killed[kill.where] += 1
            ended.killed[kill.signal.name] += 1
    return ended


def test_fifty_kills_change_nothing(inputs: Path, tmp_path: Path, seen: Seen) -> None:
    with ThreadPoolExecutor(2) as pool:
        undisturbed = tmp_path / "undisturbed"
        alone = pool.submit(attempt, inputs, undisturbed, None)
        chains = list(
            pool.map(lambda number: live_through(inputs, tmp_path / f"chain-{number}", number), range(CHAINS))
        )
        assert alone.result() == 0
    once = read_model_card(undisturbed / "ranker")
    for chain in chains:
        card = read_model_card(chain.folder / "ranker")
        assert card["weights_sha256"] == once["weights_sha256"]
        assert card["metrics"] == once["metrics"]
        assert sorted(path.name for path in (chain.folder / "ranker").iterdir()) == [
            "model.json",
            "weights.safetensors",
        ]
        assert not list((chain.folder / "checkpoints").iterdir()), "nothing is left to resume once the model is written"
    killed = sum((chain.killed for chain in chains), Counter[str]())
    kills = killed["SIGKILL"] + killed["SIGTERM"]
    assert kills == KILLS
    assert killed["synced, not renamed"] > 0
    assert killed["in the step"] > 0
    damaged = sum(chain.damaged for chain in chains)
    assert damaged > 0
    resumed = sum(step > 0 for chain in chains for step in chain.resumed_from)
    points = ", ".join(f"{killed[where]} {where}" for where in (*AT_A_CHECKPOINT, *AT_THE_END))
    seen(
        f"{kills} kills ({killed['SIGKILL']} SIGKILL, {killed['SIGTERM']} SIGTERM): {killed['in the step']} inside a "
        f"step, {killed['nowhere']} from outside by the clock; around checkpoints and model: {points}",
        f"{resumed} resumptions, weights bit-equal to the undisturbed run's ({once['weights_sha256'][:12]})",
    )
    seen(f"{damaged} newest checkpoints truncated or bit-flipped between attempts", "each time the one before was used")


def test_every_bit_counts(inputs: Path, tmp_path: Path, seen: Seen) -> None:
    """A real checkpoint, cut and flipped at seeded places all over it."""
    kill = Kill("renamed", 3 * EVERY, signal.SIGKILL, 0.0)
    assert attempt(inputs, tmp_path, kill) == -signal.SIGKILL
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    newest = sorted(checkpoints.directory.glob("step-*.checkpoint"))[-1]
    whole, chance, tries = newest.read_bytes(), random.Random(SEED), 200
    for number in range(tries):
        damage(newest, ("truncated", "flipped")[number % 2], chance)
        found = checkpoints.latest()
        assert found is not None and found.step == 2 * EVERY
        assert checkpoints.damaged == [newest.name]
        newest.write_bytes(whole)
    found = checkpoints.latest()
    assert found is not None and found.step == 3 * EVERY
    seen(f"{tries} cuts and bit flips of one checkpoint", "all detected, the one before it read")
