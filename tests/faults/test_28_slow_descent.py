"""28. Many nights of "not worse" in a row: the champion of a week ago stands guard beside yesterday's."""

from datetime import date, timedelta

import numpy as np

from benchmarks.verdict_power import CHAIN_USERS, CHAINS, NIGHTS, live
from components import registry
from goalrank.verdict import ANCHOR_DAYS, ANCHOR_MARGIN, SUPERIORITY, thresholds
from tests.components.graded_night import shared_night


def test_a_champion_that_slipped_is_not_the_only_yardstick(tmp_path, seen, monkeypatch):
    """Last week's champion is the best there was; today's is worse, and the challenger better than today's only."""
    # The judge of these tests is untrained and finds all lists alike: the rankers' clear order is 0.1% of its reward.
    monkeypatch.setattr(thresholds, "ANCHOR_MARGIN", 0.0)
    night = shared_night()
    today = date.fromisoformat(night.inputs.date)
    last_week, yesterday = (str(today - timedelta(days=days)) for days in (ANCHOR_DAYS + 1, 1))
    night.reign(str(tmp_path / "journal"), {"better": last_week, "below_floor": yesterday})
    champion = registry.champion(night.client).version
    evaluated = night.evaluate(tmp_path, "good", journal_uri=str(tmp_path / "journal"))
    verdict = evaluated.verdict
    assert verdict.difference.low > SUPERIORITY
    assert verdict.anchor is not None
    assert (verdict.champion.version, verdict.anchor.version) == (champion, night.version("better"))
    check = next(check for check in verdict.checks if check.name == "anchor")
    assert check.status == "failed"
    assert verdict.decision == "keep"
    again_R = np.array([row["anchor_reward"] for row in evaluated.lists])
    assert np.isfinite(again_R).all()
    assert len(again_R) == verdict.requests
    seen(
        "a challenger better than today's champion, worse than last week's",
        f"kept: {verdict.difference.mean:+.4f} against the champion, {verdict.anchor_difference.mean:+.4f} against the "
        f"anchor of {last_week}, both scored tonight",
    )


def test_the_anchor_does_not_stop_one_that_is_better_than_both(tmp_path, seen):
    night = shared_night()
    today = date.fromisoformat(night.inputs.date)
    last_week, yesterday = (str(today - timedelta(days=days)) for days in (ANCHOR_DAYS + 1, 1))
    night.reign(str(tmp_path / "journal"), {"good": last_week, "below_floor": yesterday})
    verdict = night.evaluate(tmp_path, "better", journal_uri=str(tmp_path / "journal")).verdict
    assert verdict.anchor.version == night.version("good")
    assert verdict.decision == "promote"
    seen("one better than both", "promote")


def test_thirty_nights_of_small_losses(seen):
    """The verdict itself, thirty nights in a row, each challenger half a per cent worse than the champion: by a rule
    that promotes whatever is not shown to be worse, without and with the anchor, and by the real one."""
    lived = {
        name: [live(CHAINS[f"{name}0.5% worse each night"], number, CHAIN_USERS) for number in range(3)]
        for name in ("careless: ", "careless but anchored: ", "")
    }
    ends = {name: min(quality for quality, _ in ended) for name, ended in lived.items()}
    assert ends["careless: "] < -5 * ANCHOR_MARGIN
    assert ends["careless: "] < 2 * ends["careless but anchored: "]
    assert ends[""] >= -ANCHOR_MARGIN
    seen(
        f"{NIGHTS} nights, each challenger 0.5% worse",
        f"without the anchor a careless rule ends at {ends['careless: ']:+.1%}, with it at "
        f"{ends['careless but anchored: ']:+.1%}; the real rule at {ends['']:+.1%}",
    )
