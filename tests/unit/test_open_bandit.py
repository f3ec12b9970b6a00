"""The reader of the Open Bandit files, and what the Thompson log says of the uniform policy, where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.off_policy import OPEN_BANDIT
from goalrank.errors import DataRefused
from goalrank.off_policy import MINIMUM_ESS, cluster_intervals, conclude, logged_value, with_intervals
from goalrank.open_bandit import read_log, uniform_policy

HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0"
ROWS = ["0,2019-11-24 00:01:03+00:00,0,1,0,0.5,a", "1,2019-11-24 00:01:04+00:00,1,3,1,0.25,b"]

there = pytest.mark.skipif(not OPEN_BANDIT.is_dir(), reason=f"the Open Bandit files are not in {OPEN_BANDIT}")


def write(folder: Path, rows: list[str], header: str = HEADER, items: int = 2) -> Path:
    (folder / "bts_men.csv.gz").write_bytes(gzipped("\n".join([header, *rows]) + "\n"))
    context = ["item_id,item_feature_0", *(f"{item},{item * 0.1}" for item in range(items))]
    (folder / "item_context_bts_men.csv").write_text("\n".join(context) + "\n")
    return folder


def gzipped(text: str) -> bytes:
    import gzip

    return gzip.compress(text.encode())


def test_a_log_is_read_as_it_is(tmp_path):
    log = read_log(write(tmp_path, ROWS), "bts", "men")
    assert (log.items, len(log)) == (2, 2)
    assert (log.item_n.tolist(), log.position_n.tolist()) == ([0, 1], [1, 3])
    assert (log.click_n.tolist(), log.propensity_n.tolist()) == ([0.0, 1.0], [0.5, 0.25])


@pytest.mark.parametrize(
    ("rows", "header", "items", "told"),
    [
        ([ROWS[0].replace("0.5", "0.0")], HEADER, 2, "propensity_score of bts_men: 1 zero or negative"),
        ([ROWS[0].replace("0.5", "nan")], HEADER, 2, "propensity_score of bts_men: 1 NaN or infinite"),
        ([ROWS[0].replace("0.5", "1.5")], HEADER, 2, "propensity_score of bts_men: 1 above 1"),
        ([ROWS[1].replace(",1,0.25", ",2,0.25")], HEADER, 2, r"clicks \[2\] found, expected 0 and 1"),
        ([ROWS[1]], HEADER, 1, r"item_id 1..1 found, expected 0..0"),
        (ROWS, HEADER.replace("propensity_score", "score"), 2, r"bts_men.csv.gz cannot be read .*propensity_score"),
        ([ROWS[0].replace("0.5", "half")], HEADER, 2, "bts_men.csv.gz cannot be read"),
    ],
)
def test_a_bad_log_is_refused(tmp_path, rows, header, items, told):
    with pytest.raises(DataRefused, match=told):
        read_log(write(tmp_path, rows, header, items), "bts", "men")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataRefused, match="random_men.csv.gz cannot be read"):
        read_log(write(tmp_path, ROWS), "random", "men")


def intervals(campaign: str) -> dict[str, tuple[float, float, float]]:
    """By estimator: lower end, upper end, effective sample size, of the uniform policy from the Thompson log."""
    found = uniform_policy(read_log(OPEN_BANDIT, "bts", campaign))
    low_E, high_E = cluster_intervals(np.stack([each.influence_R for each in found], axis=1), None)
    return {
        each.estimator: (low, high, each.effective_sample_size)
        for each, low, high in zip(found, low_E, high_E, strict=True)
    }


@there
def test_men_the_interval_covers_the_uniform_logs_own_click_rate():
    uniform = read_log(OPEN_BANDIT, "random", "men")
    assert uniform.propensity_n == pytest.approx(1 / uniform.items)
    found = intervals("men")
    for name in ("snips", "dr"):
        low, high, worth = found[name]
        assert low <= uniform.click_n.mean() <= high
        assert worth > MINIMUM_ESS


@there
def test_women_the_weights_are_worth_two_samples_so_nothing_is_concluded():
    log = read_log(OPEN_BANDIT, "bts", "women")
    estimate = uniform_policy(log)[1]
    assert estimate.effective_sample_size == pytest.approx(2, abs=0.5)
    own = logged_value(log.click_n[:, None])
    named = with_intervals({"challenger": estimate, "difference": estimate.minus(own)}, None)
    assert conclude(named, against="the Thompson policy").status == "inconclusive"
