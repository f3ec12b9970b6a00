"""A model file that is a malicious pickle never runs, and one flipped byte is refused: at the start and at a swap."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

from components import registry
from goalrank.errors import EXIT_MODEL_REFUSED
from tests.components.serving import Place, body, get, launch, make_place, post, serving
from tests.faults.conftest import Seen

PATIENCE = 60.0


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


def test_the_trap_works(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def plant(place: Place, directory: Path, version: str, canary: Path) -> None:
    """Pickles wherever a loader might look, and the weights' digest made to agree in card and registry."""
    trap = pickle.dumps(Trap(canary))
    weights = directory / "weights.safetensors"
    weights.write_bytes(trap)
    digest = hashlib.sha256(trap).hexdigest()
    card = json.loads((directory / "model.json").read_text())
    (directory / "model.json").write_text(json.dumps(card | {"weights_sha256": digest}))
    for name in ("model.pkl", "python_model.pkl", "weights.pt", "pytorch_model.bin"):
        (directory / name).write_bytes(trap)
        (directory.parent / name).write_bytes(trap)
    (directory.parent / "MLmodel").write_text("flavors: {python_function: {python_model: python_model.pkl}}\n")
    registry.connect(place.tracking_uri).set_model_version_tag(registry.RANKER, version, "weights_sha256", digest)


def flip(directory: Path) -> None:
    """One byte in the middle of the weights."""
    weights = directory / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.mark.parametrize("fault", ["pickle", "flipped byte"])
def test_such_a_champion_does_not_start(place: Place, tmp_path: Path, fault: str, seen: Seen) -> None:
    directory, canary = place.register(seed=1), tmp_path / "canary"
    if fault == "pickle":
        plant(place, directory, "1", canary)
    else:
        flip(directory)
    process = launch(place, tmp_path / "served")
    out, told = process.communicate(timeout=120)
    assert process.returncode == EXIT_MODEL_REFUSED, told[-2000:]
    assert "answers at" not in out and not canary.exists()
    reason = next(line for line in reversed(told.splitlines()) if "weights" in line)
    seen(
        f"the champion's weights: {fault}; the server started",
        f"exit code {process.returncode}, nothing ran: {reason[:160]}",
    )


@pytest.mark.parametrize("fault", ["pickle", "flipped byte"])
def test_such_a_version_is_not_swapped_in(place: Place, tmp_path: Path, fault: str, seen: Seen) -> None:
    place.register(seed=1)
    canary = tmp_path / "canary"
    with serving(place, tmp_path / "served", "--poll-seconds", "0.2", "--exploration", "0") as address:
        before = post(address, "/rank", body(1))
        directory = place.register(seed=2, alias=None)
        if fault == "pickle":
            plant(place, directory, "2", canary)
        else:
            flip(directory)
        place.point("2", previous="1")
        refused = wait_for(address, 'goalrank_swaps_total{outcome="refused"}')
        after = post(address, "/rank", body(1))
        assert get(address, "/ready")["model_version"] == "1"
    assert refused >= 1 and not canary.exists()
    assert (after["model_version"], after["items"]) == ("1", before["items"])
    seen(f"a new champion's weights: {fault}; a server running", "not swapped in, version 1 goes on answering")


def test_beside_an_unreadable_copy_the_next_good_version_is_swapped_in(place: Place, tmp_path: Path) -> None:
    place.register(seed=1)
    with serving(place, tmp_path / "served", "--poll-seconds", "0.2") as address:
        broken = place.register(seed=2)
        shutil.rmtree(broken)
        wait_for(address, 'goalrank_swaps_total{outcome="refused"}')
        place.register(seed=3)
        wait_for(address, 'goalrank_swaps_total{outcome="swapped"}')
        assert get(address, "/ready")["model_version"] == "3"


def wait_for(address: str, metric: str) -> float:
    """The metric's value, once it is above 0."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(metric) and float(line.rsplit(" ", 1)[1]) > 0:
                    return float(line.rsplit(" ", 1)[1])
        time.sleep(0.1)
    raise AssertionError(f"{metric} stayed 0 for {PATIENCE} s")
