"""One piece of work of the study each, kept on disk under a digest of all it depends on.

    CACHE/<stage>/<name>-<digest>/    result.json, and what the stage makes beside it

    data      a world's problem, one kind of candidates       encoder   pretrained on the next item, of a seed, a width
    guide     a reward model of a seed and a trial            run       a method, a seed, a trial: judged on both splits
    stand_in  the reward model of random lists                search    a reward model's best lists, judged
    overtrain GoalRank trained on and on, watched             judged    a guide's opinion of lists against the truth

The digest is over the settings, the digests of the stages before, and the syntax trees (without comments and
docstrings) of the modules that do the work and of all project modules these import. A folder is written aside and
renamed: a study that was cut short goes on where it stopped.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from benchmarks.devices import device_of, name_of
from benchmarks.kept import RESULT, made_once, result_of
from benchmarks.quality import guide_measures, movielens, simulated
from benchmarks.quality.methods import ask, batches, modules_of, opinion, train
from benchmarks.quality.problem import TEST, TRAIN, VALIDATION, Problem, shown_alone
from benchmarks.quality.search import long_search
from benchmarks.quality.settings import OURS, Scale, Trial, as_tried
from goalrank.checkpoint import load_model, save_model
from goalrank.encoders import ModelSizes, RequestEncoder
from goalrank.errors import CheckpointDamaged, ModelRefused
from goalrank.pretrain import copy_pretrained, histories_of, pretrain_on
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.reward_training import train as train_reward
from goalrank.schema import LIST_LENGTH

ROOT = Path(__file__).parents[2]
MOVIELENS, SIMULATOR = "movielens", "simulator"
KINDS = {MOVIELENS: movielens.KINDS, SIMULATOR: simulated.KINDS}
REPORTED_CURVE = 20
"""Points of the curve of true reward against steps."""

_OURS_CODE = "benchmarks.quality.ours"
_OWN_CODE = ("benchmarks.quality.methods", "benchmarks.quality.simulated", "benchmarks.quality.movielens")


@dataclass(frozen=True)
class Place:
    """A study: what it is about and where its cache and data lie."""

    world: str
    scale: Scale
    cache: Path
    data: Path
    device: str = "cpu"
    """What models are trained and asked on. No part of a digest: the same up to rounding, and each result names it."""


@dataclass(frozen=True)
class Task:
    """One piece of work; what does not apply stays as it is by default."""

    stage: str
    kind: str
    seed: int = 0
    method: str = ""
    trial: Trial = Trial()
    guide: Trial = Trial()  # the setting of the guide that the method learns with

    @property
    def name(self) -> str:
        """For people and for the folder's name."""
        parts = [self.kind, self.method, f"seed{self.seed}", f"rate{self.trial.rate:g}"]
        if self.trial.guided != Trial.guided:
            parts.append(f"guided{self.trial.guided:g}")
        if self.trial.from_guide:
            parts.append("from-guide")
        if self.trial.width:
            parts.append(f"width{self.trial.width}")
        if self.trial.temperature is not None:
            parts.append(f"temperature{self.trial.temperature:g}-supervised{self.trial.supervised:g}")
        return "-".join(part for part in parts if part)

    @property
    def setting(self) -> str:
        """The trial, for tables."""
        trial = self.trial
        text = f"rate x{trial.rate:g}"
        if trial.guided != Trial.guided:
            text = f"{text}, {trial.guided:.0%} of the steps guide"
        if trial.from_guide:
            text = f"{text}, begins with the guide's encoder"
        if trial.width:
            text = f"{text}, width {trial.width}"
        if trial.temperature is None:
            return text
        text = f"{text}, temperature {trial.temperature:g}, supervised {trial.supervised:g}"
        return f"{text}, {trial.plan}" if trial.plan else text


def perform(place: Place, task: Task) -> dict[str, Any]:
    """The task's result, from the cache or by doing it: result.json with "seconds" and whether it was "cached"."""
    folder = folder_of(place, task)
    if cached(place, task):
        return {**result_of(folder), "cached": True}

    def work(aside: Path) -> dict[str, Any]:
        try:
            result = _WORK[task.stage](place, task, aside)
        except ModelRefused as error:
            if isinstance(error, CheckpointDamaged) or task.stage not in ("run", "guide"):
                raise
            result = {"refused": str(error)}  # a setting that diverges loses; the study goes on
        return result if task.stage == "data" else result | {"device": name_of(place.device)}

    own = made_once(folder, work)
    return {**result_of(folder), "cached": not own}


def cached(place: Place, task: Task) -> bool:
    """Whether the task's result is there."""
    return (folder_of(place, task) / RESULT).is_file()


def folder_of(place: Place, task: Task) -> Path:
    """Where the task's result lies, or will."""
    return place.cache / task.stage / f"{place.world}-{task.name}-{digest(place, task)}"


def figures_of(place: Place, task: Task) -> dict[str, np.ndarray]:
    """The per-request figures on TEST of a finished run or search."""
    table = pq.read_table(folder_of(place, task) / "requests.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


# ------------------------------------------------------------------------------------------------------------ digests


def digest(place: Place, task: Task) -> str:
    """16 hex digits over all the task depends on."""
    return hashlib.sha256(json.dumps(_depends_on(place, task), sort_keys=True).encode()).hexdigest()[:16]


def _depends_on(place: Place, task: Task) -> dict[str, Any]:
    scale = place.scale
    made: dict[str, Any] = {"stage": task.stage, "kind": task.kind, "seed": task.seed}
    if task.stage == "data":
        world: dict[str, Any] = {"world": place.world}
        if place.world == MOVIELENS:
            limits = (scale.train_requests, scale.validation_requests, scale.test_requests)
            world |= {"files": _file_digests(place.data), "limits": limits}
            code = code_digest(("benchmarks.quality.movielens",))
        else:
            limits = (scale.train_requests, scale.simulated_requests)
            world |= {"config": simulated.world_of(scale).to_json(), "days": scale.days, "limits": limits}
            code = code_digest(("benchmarks.quality.simulated",))
        return made | world | {"code": code}
    made["data"] = digest(place, _data(task))
    if task.stage == "judged":
        code = code_digest(("benchmarks.quality.guide_measures",))
        return made | {"model": digest(place, _guide(task)), "requests": scale.watched_requests, "code": code}
    preset = asdict(as_tried(scale.preset, _of_the_model(task)))
    made["preset"] = {name: value for name, value in preset.items() if name not in _UNUSED_BY.get(task.stage, ())}
    if task.stage == "encoder":
        return made | {"places": scale.pretrain_places, "code": code_digest(("goalrank.pretrain",))}
    made["encoder"] = digest(place, encoder_task(task))
    if task.stage == "guide":
        made["shown_alone"] = scale.shown_alone
    if task.stage in ("guide", "stand_in"):
        made |= {"trial": asdict(task.trial), "code": code_digest(("goalrank.reward_training",))}
        if task.stage == "stand_in":
            made |= {"random_lists": scale.random_lists, "steps": scale.stand_in_steps}
        return made
    own = (_OURS_CODE,) if task.method == OURS else modules_of(task.method, scale.preset)
    made["code"] = code_digest((*_OWN_CODE, *own))
    if task.stage == "search":
        made["model"] = digest(place, _searched(task))
        return made | {"search": code_digest(("benchmarks.quality.search",))}
    made |= {"guide": digest(place, _guide(task)), "method": task.method, "trial": asdict(task.trial)}
    made["watched"] = scale.watched_requests
    if task.stage == "overtrain":
        made["overtraining"] = scale.overtraining
    return made


def _of_the_model(task: Task) -> Trial:
    """The setting of the model that a task is about."""
    return task.guide if task.stage in ("search", "judged") else task.trial


_OF_THE_RANKER = ("helper_lists", "on_policy_lists", "ranker_steps", "checkpoint_every", "helpers", "refresh")
_UNUSED_BY = {
    "encoder": ("reward_steps", *_OF_THE_RANKER),
    "guide": ("pretrain_steps", *_OF_THE_RANKER),  # the encoder's digest has it
    "stand_in": ("pretrain_steps", "reward_steps", *_OF_THE_RANKER),
}
"""Fields of the preset that a stage does not depend on."""


def code_digest(modules: Iterable[str]) -> str:
    """16 hex digits over the code of these modules and of every project module that they import, wherever.

    goalrank.baselines, which imports the whole field, and GoalRank's training are not followed: a method's own modules
    are named.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imported = _module(name)
            waiting += [one for one in imported if one not in _NOT_FOLLOWED]
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


_NOT_FOLLOWED = ("goalrank", "benchmarks", "benchmarks.quality", "goalrank.baselines", _OURS_CODE)


@lru_cache(maxsize=256)
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """A module's code as a digest, and the project modules it imports."""
    path = _path_of(name)
    assert path is not None, name
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    ours = sorted(one for one in imported if one.split(".")[0] in ("goalrank", "benchmarks") and _path_of(one))
    return hashlib.sha256(_dumped(tree).encode()).hexdigest(), tuple(ours)


def _dumped(node: Any) -> str:
    """As ast.dump, less what is empty: which empty fields there are depends on Python's version, and runs of one
    machine are gone on with on another."""
    if isinstance(node, list):
        return f"[{', '.join(_dumped(one) for one in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    told = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"{type(node).__name__}({', '.join(f'{name}={_dumped(value)}' for name, value in told)})"


def _path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=4)
def _file_digests(folder: Path) -> dict[str, str]:
    made = {}
    for name in movielens.FILES:
        with open(folder / name, "rb") as file:
            made[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return made


# --------------------------------------------------------------------------------------------------- what comes before


def _data(task: Task) -> Task:
    return Task("data", task.kind)


def encoder_task(task: Task) -> Task:
    """The encoder that a guide or a run begins with; of the first kind of candidates for all kinds, since sequences do
    not depend on candidates."""
    kind = KINDS[MOVIELENS][0] if task.kind in KINDS[MOVIELENS] else task.kind
    return Task("encoder", kind, task.seed, trial=Trial(width=_of_the_model(task).width))


def _guide(task: Task) -> Task:
    return Task("guide", task.kind, task.seed, trial=task.guide)


def _searched(task: Task) -> Task:
    return _guide(task) if task.method != STAND_IN else Task("stand_in", task.kind)


STAND_IN = "stand-in"
"""Task.method of the search of the reward model of random lists."""


@lru_cache(maxsize=2)
def problem_of(place: Place, kind: str) -> Problem:
    """The problem, read from the cache."""
    kind_of = movielens.MovieLens if place.world == MOVIELENS else simulated.Simulated
    return kind_of(folder_of(place, Task("data", kind)))


@lru_cache(maxsize=16)
def encoder_of(place: Place, task: Task) -> RequestEncoder:
    """The pretrained encoder, read from the cache."""
    encoder = RequestEncoder(ModelSizes.from_preset(as_tried(place.scale.preset, task.trial)))
    encoder.load_state_dict(load_file(folder_of(place, task) / "encoder.safetensors"))
    return encoder.eval()


def _reward_model(place: Place, task: Task) -> RewardModel:
    model = load_model(folder_of(place, task) / "model")
    assert isinstance(model, RewardModel)
    return model


# --------------------------------------------------------------------------------------------------------------- work


def _make_data(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    with TemporaryDirectory(dir=place.cache) as scratch:
        if place.world == MOVIELENS:
            movielens.prepare(place.data, task.kind, folder, place.scale, Path(scratch))
        else:
            simulated.prepare(folder, place.scale, Path(scratch))
    kind_of = movielens.MovieLens if place.world == MOVIELENS else simulated.Simulated
    return {"requests": {name: len(rows) for name, rows in kind_of(folder).rows.items()}}


def _pretrain(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    histories = histories_of(*problem_of(place, task.kind).windows)
    places, device = place.scale.pretrain_places, place.device
    preset = as_tried(place.scale.preset, task.trial)
    encoder, figures = pretrain_on(histories, preset, task.seed, device=device, places=places)
    save_file(dict(encoder.state_dict()), folder / "encoder.safetensors")
    return figures


def _train_guide(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    problem = problem_of(place, task.kind)
    steps = as_tried(place.scale.preset, task.trial).reward_steps
    data = shown_alone(problem.data) if place.scale.shown_alone else problem.data
    return _reward(place, task, data, problem.rows[TRAIN], steps, folder)


def _train_stand_in(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    problem = problem_of(place, task.kind)
    assert isinstance(problem, simulated.Simulated)
    data, rows = simulated.randomly_shown(problem, place.scale.random_lists)
    return _reward(place, task, data, rows, place.scale.stand_in_steps, folder)


def _reward(place: Place, task: Task, data: Any, rows: np.ndarray, steps: int, folder: Path) -> dict[str, Any]:
    """Train a reward model from the seed's encoder and keep it under `folder`/model."""
    preset = as_tried(place.scale.preset, task.trial)
    preset = replace(preset, learning_rate=preset.learning_rate * task.trial.rate)
    torch.manual_seed(task.seed)
    model = RewardModel(ModelSizes.from_preset(preset))
    copy_pretrained(encoder_of(place, encoder_task(task)), model.encoder)
    figures = train_reward(model, data, rows, preset, task.seed, steps=steps, device=place.device)
    save_model(folder / "model", model, "reward", model.sizes.to_dict(), {"seed": task.seed}, {})
    figures.pop("reliability")
    return {**figures, "held_out_loss": min(loss for _, loss in figures["curves"]["held_out_loss"])}


def _run(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    problem = problem_of(place, task.kind)
    if refused := result_of(folder_of(place, _guide(task))).get("refused"):
        raise ModelRefused(f"its guide was refused: {refused}")
    guide = _reward_model(place, _guide(task))
    encoder = encoder_of(place, encoder_task(task))
    preset = as_tried(place.scale.preset, task.trial)
    method = train(task.method, problem, encoder, guide, preset, task.seed, task.trial, device=place.device)
    validation = problem.figures(VALIDATION, *ask(method, problem, VALIDATION, scored=False))
    lists_RL, scores_RN = ask(method, problem, TEST, scored=True)
    test = problem.figures(TEST, lists_RL, scores_RN)
    _write_figures(folder, test)
    return {
        "parameters": method.parameters,
        "validation": _means(validation),
        "test": _means(test),
        "r_hat": opinion(guide, problem, TEST, lists_RL),
        "training": method.figures,
    }


def _search(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    """Judge the best lists that long search finds for a reward model."""
    problem = problem_of(place, task.kind)
    model = _reward_model(place, _searched(task))
    lists_RL, expected_R = long_search(model.to(place.device), problem.data, problem.rows[TEST], LIST_LENGTH, task.seed)
    figures = problem.figures(TEST, lists_RL, None)
    _write_figures(folder, figures)
    return {"test": _means(figures), "expected": float(expected_R.mean())}


def _overtrain(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    """GoalRank trained several times as long; on some validation requests what its guide and what the truth say."""
    problem = problem_of(place, task.kind)
    assert isinstance(problem, simulated.Simulated)
    guide = _reward_model(place, _guide(task))
    preset = as_tried(place.scale.preset, task.trial)
    steps = preset.ranker_steps * place.scale.overtraining
    longer = replace(preset, ranker_steps=steps)
    watcher = Watcher(problem, guide, place.scale.watched_requests, max(1, steps // REPORTED_CURVE))
    encoder = encoder_of(place, encoder_task(task))
    made: dict[str, Any] = {"curve": watcher.points, "steps": steps}
    try:
        train(OURS, problem, encoder, guide, longer, task.seed, task.trial, watcher, place.device)
    except ModelRefused as error:
        made["diverged"] = str(error)  # the curve until then is what the study asks for
    return made


def _judge(place: Place, task: Task, folder: Path) -> dict[str, Any]:
    """A guide's opinion of lists held against their true reward, on some validation requests."""
    problem = problem_of(place, task.kind)
    assert isinstance(problem, simulated.Simulated)
    guide = _reward_model(place, _guide(task))
    return {"lists": guide_measures.judged(problem, guide, place.scale.watched_requests, place.device)}


class Watcher:
    """Asks a ranker in training now and then: [[step, r_hat, r*], ...] of its greedy lists."""

    def __init__(self, problem: simulated.Simulated, guide: RewardModel, requests: int, every: int) -> None:
        self.problem, self.guide, self.requests, self.every = problem, guide, requests, every
        self.points: list[list[float]] = []

    @torch.inference_mode()
    def __call__(self, step: int, ranker: Ranker) -> None:
        if step != 1 and step % self.every:
            return
        rows_R = self.problem.rows[VALIDATION][: self.requests]
        lists, expected = [], 0.0
        for batch in batches(self.problem, rows_R, device_of(ranker)):
            lists_BL = ranker.greedy(ranker.encode(batch), LIST_LENGTH)
            expected += float(self.guide.reward(self.guide.encode(batch), lists_BL[:, None]).double().sum())
            lists.append(lists_BL.cpu().numpy())
        found_RL = np.concatenate(lists)
        true = float(self.problem.true_reward(VALIDATION, found_RL).mean())
        self.points.append([step, expected / len(found_RL), true])


_WORK: dict[str, Callable[[Place, Task, Path], dict[str, Any]]] = {
    "data": _make_data,
    "encoder": _pretrain,
    "guide": _train_guide,
    "run": _run,
    "stand_in": _train_stand_in,
    "search": _search,
    "overtrain": _overtrain,
    "judged": _judge,
}


def _write_figures(folder: Path, figures: dict[str, np.ndarray]) -> None:
    table = pa.table({name: np.asarray(values, dtype=np.float32) for name, values in figures.items()})
    pq.write_table(table, folder / "requests.parquet", compression="zstd")


def _means(figures: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Means over the requests that have the figure; None where none has."""
    known = {name: values[~np.isnan(values)] for name, values in figures.items()}
    return {name: float(values.mean()) if len(values) else None for name, values in known.items()}
