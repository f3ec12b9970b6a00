"""benchmarks/scaling.py in small: every part end to end, mis-picks by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from benchmarks import scaling, scaling_figure
from benchmarks.ablations import runs
from benchmarks.ablations.signals import Truth
from benchmarks.quality import stages
from benchmarks.quality.problem import TEST
from benchmarks.quality.stages import SIMULATOR, Place
from benchmarks.scaling_generators import generators_and_evaluator, judged, proposals, size_of
from benchmarks.scaling_points import sized
from goalrank.encoders import ModelSizes
from goalrank.ranker import Ranker
from goalrank.schema import LIST_LENGTH

torch.set_num_threads(1)

TINY = replace(scaling.QUICK, seeds=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(SIMULATOR, TINY.scale, tmp_path_factory.mktemp("scaling"), Path("unused"))
    runs.prepare(found, TINY.seeds)
    return found


def test_larger_sizes_of_another_precision_stand_beside_the_figures_own(tmp_path: Path, monkeypatch) -> None:
    drawn: list[Axes] = []
    monkeypatch.setattr(scaling_figure, "save", lambda figure, file: drawn.extend(figure.axes))
    own = [{"part": "size, r*", "without embeddings": 1e4, "regret": 0.7, "sd": 0.01}]
    scaling_figure.draw(own, tmp_path / "own.png")
    scaling_figure.draw_with_larger(own, tmp_path / "both.png")
    _, alone, _, _, both, _ = drawn
    larger = [row for row in json.loads(scaling_figure.LARGER.read_text())["rows"] if row["part"] == "size, r*"]
    assert alone.dataLim.xmax == 1e4 and both.dataLim.xmax == larger[-1]["without embeddings"]
    labels = [text.get_text() for text in both.get_legend().get_texts()]
    assert sum("in no fit" in label for label in labels) == len(scaling_figure.SIGNALS) - 1  # nothing of the guide here


def test_every_part_end_to_end(place: Place, tmp_path: Path, capsys) -> None:
    options = ["--quick", "--cache", str(place.cache), "--json", str(tmp_path / "scaling.json")]
    assert scaling.main(options) == 0
    printed = capsys.readouterr()
    document = json.loads((tmp_path / "scaling.json").read_text())
    assert json.loads(printed.out.splitlines()[-1]) == document and document["complete"]
    rows = document["rows"]
    by = {(row["generators"], row["lists of each"]): row for row in rows if "generators" in row}
    assert set(by) == {(count, lists) for count in TINY.generators for lists in TINY.lists}
    for (count, lists), row in by.items():
        assert row["parts"] == count + 1 and row["scored"] == count * lists and 0 <= row["mis-picks"] <= 1
        assert row["regret"] == pytest.approx(row["regret of best proposed"] + row["lost by them"], abs=2e-4)
        assert 1 <= row["distinct"] <= count * lists
    assert by[3, 4]["regret of best proposed"] <= by[3, 1]["regret of best proposed"]  # one holds the other's lists
    assert by[6, 1]["parameters"] > by[3, 1]["parameters"] > by[3, 1]["without embeddings"]
    for part, points in (("size", len(TINY.sizes)), ("data", len(TINY.requests))):
        for signal in scaling.SIGNALS:
            found = [row for row in rows if row["part"] == f"{part}, {signal}"]
            assert len(found) == points + 1 and found[-1]["low"] <= found[-1]["high"]
            assert found[-1]["observed"] == pytest.approx(found[-2]["regret"], abs=1e-4)
    grown = [row["without embeddings"] for row in rows if row["part"] == "size, r*" and "regret" in row]
    assert grown == sorted(grown) and len(set(grown)) == len(grown)
    amounts = [row["requests"] for row in rows if row["part"] == "data, guide" and "regret" in row]
    assert amounts == list(TINY.requests)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    assert scaling.main([*options, "--part", "data"]) == 0  # from the cache
    again = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert again == [row for row in rows if row["part"].startswith("data")]
    assert "point, seed" not in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(capsys) -> None:
    assert scaling.main(["--quick", "--gpu"]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_mis_picks_are_held_against_the_best_proposal(place: Place) -> None:
    problem, seed = runs.problem_of(place), 0
    encoder, guide = stages.encoder_of(place, runs.encoder_task(seed)), runs.guide_of(place, seed)
    model = generators_and_evaluator(problem, guide, encoder, place.scale.preset, seed, 3)
    assert size_of(model)["parts"] == 4
    truth = Truth(problem, TEST)
    found = judged(model, problem, truth, 12, (1, 3))
    rows_R = problem.rows[TEST][:12]
    batch = problem.data.batch(rows_R)
    with torch.inference_mode():
        lists_BSKL = proposals(model, batch, 3, torch.Generator().manual_seed(41))
        own_BKL = model.propose(batch, LIST_LENGTH)
        assert torch.equal(lists_BSKL[:, 0], own_BKL)
        assert lists_BSKL.sort(dim=-1).values.diff(dim=-1).min() > 0  # no item twice
        picked_BL = model.rank(batch, LIST_LENGTH).numpy()

    def true(lists_BL: np.ndarray) -> np.ndarray:
        whole = np.tile(np.arange(LIST_LENGTH), (len(problem.rows[TEST]), 1))
        whole[:12] = lists_BL
        return problem.true_reward(TEST, whole)[:12]

    each_BK = np.stack([true(own_BKL[:, k].numpy()) for k in range(3)], axis=1)
    picked_B = true(picked_BL)
    assert found["1"]["reward"] == pytest.approx(picked_B.mean(), rel=1e-6)
    assert found["1"]["best proposed"] == pytest.approx(each_BK.max(axis=1).mean(), rel=1e-6)
    assert found["1"]["mis-picks"] == pytest.approx((picked_B < each_BK.max(axis=1) - 1e-9).mean())
    assert found["3"]["best proposed"] >= found["1"]["best proposed"]


def test_claims_that_do_not_hold_are_said() -> None:
    rows = [
        {"part": "generators", "method": f"mg-e-{count}", "generators": count, "lists of each": 1, "scored": count,
         "regret": regret, "mis-picks": mis_picks}
        for count, regret, mis_picks in ((3, 0.5, 0.4), (20, 0.4, 0.6), (100, 0.3, 0.3))
    ]  # fmt: skip
    rows.append({"part": "generators", "method": "goalrank", "regret": 0.35})
    made = scaling.claims_of(rows)
    assert len(made) == 3 and not any(one["holds"] for one in made)


def test_sizes_reach_a_hundred_million_parameters() -> None:
    def grown(width: int, layers: int) -> int:
        with torch.device("meta"):
            ranker = Ranker(ModelSizes.from_preset(sized(scaling.FULL.scale.preset, width, layers)))
            table = ranker.encoder.items.embedding.weight.numel()
            return sum(weight.numel() for weight in ranker.parameters()) - table

    found = [grown(*one) for one in (*scaling.FULL.sizes, *scaling.FULL.gpu_sizes)]
    assert found == sorted(found) and len(scaling.FULL.sizes) >= 6 and len(scaling.FULL.requests) >= 5
    assert found[-1] > 0.9e8
