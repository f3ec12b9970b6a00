"""The world of a replay: small enough for thirty nights in an hour, restless enough that standing still costs.

A feed of short-lived items: 300 on the first day, 20 new ones every day, so that after thirty days three items in
five are ones the frozen model was never trained on. Its features are as fresh as the champion's; its weights are not.
Tastes and fashion wander as in every simulated world (goalrank/simulator/config.py).
"""

from __future__ import annotations

from goalrank.simulator import WorldConfig

FIRST_NIGHT_DAYS = 8
"""Days lived under the world's own logging policy before the first night: a week to learn from, one to be judged on."""

WINDOW_DAYS = 8
"""Arrival days in the training set: the tiny preset's steps see each request of a week about once, more would be
joined and not looked at."""

LOGGING_SHARE = 0.1
"""Share of a day's requests ranked by the world's own stochastic logging policy: lists that no ranker has chosen."""

EXPLORATION = 0.8
"""Share of the champion's requests that get a list sampled from it. Far more than a service would spend (`goalrank
serve` explores 0.02): a day has 2,000 requests, and the off-policy gate wants 10 effective samples. Measured with two
rankers of neighbouring nights: 4 to 6 of them at 0.1, 16 to 24 at 0.5, 35 to 49 at 0.8; the logging share adds none.
The curve compares greedy lists; what exploring and logging cost is in the history, as `served`."""


def replay_world(seed: int) -> WorldConfig:
    """The world in which `goalrank replay` lives."""
    return WorldConfig(seed=seed, users=600, items=300, requests_per_day=2000)
