"""The slower ways choose our lists; the table and claims have their form on a run of seconds."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import rank_latency, report
from benchmarks.random_requests import random_requests
from benchmarks.ranker_steps import fresh
from benchmarks.reencoding import reencoded_greedy, stepwise_greedy
from goalrank.schema import LIST_LENGTH


def test_same_lists() -> None:
    ranker, _ = fresh("tiny")
    with torch.no_grad():  # sharper than at its start: lists that differ between requests
        for weight in ranker.decoder.parameters():
            weight.mul_(1.5)
    batch = random_requests(20, 9, torch.Generator().manual_seed(5))
    with torch.inference_mode():
        encoded = ranker.encode(batch)
        ours = ranker.greedy(encoded, LIST_LENGTH)
        assert len(ours.unique(dim=0)) > 10
        assert reencoded_greedy(ranker, batch, LIST_LENGTH).equal(ours)
        assert stepwise_greedy(ranker, encoded, LIST_LENGTH).equal(ours)


def test_rank_latency_speaks_as_every_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = rank_latency.Case("tiny", calls=2 * rank_latency.BLOCK, requests=4, warm_up=1)
    monkeypatch.setattr(rank_latency, "QUICK", case)
    report.run("rank_latency", rank_latency.rows_of, argv=["--quick"])
    document = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    rows = {row["way"]: row for row in document["rows"]}
    assert rows[rank_latency.REENCODING]["same_lists"] and rows[rank_latency.NO_CACHE]["same_lists"]
    assert rows[rank_latency.REENCODING]["bound"] == LIST_LENGTH
    assert all(0 < row["p5_ms"] <= row["p50_ms"] <= row["p99_ms"] for row in rows.values())
    claims = {made["name"]: made for made in document["claims"]}
    for way, target in rank_latency.TARGETS.items():
        made = claims[f"times faster than {way}, p50"]
        assert made["target"] == f"at least {target:g}" and made["value"] == rows[way]["p50_ratio"]


def test_generator_evaluators_propose_distinct_lists_and_the_best_first() -> None:
    chance = torch.Generator().manual_seed(0)
    batch = random_requests(3, rank_latency.CANDIDATES, chance)
    lists_BGL = rank_latency.proposals(batch.score_BN, batch.mask_BN, chance)
    assert lists_BGL.shape == (3, rank_latency.LISTS, LIST_LENGTH)
    assert lists_BGL[:, 0].equal(batch.score_BN.argsort(dim=1, descending=True)[:, :LIST_LENGTH])
    assert all(len(set(row)) == LIST_LENGTH for row in lists_BGL.flatten(0, 1).tolist())
    assert len(lists_BGL[1].unique(dim=0)) > 90
    ways = rank_latency.ways_of(rank_latency.Case("tiny"))
    with torch.inference_mode():
        for way in rank_latency.TARGETS:
            assert ways[way](batch).shape == (3, LIST_LENGTH)
