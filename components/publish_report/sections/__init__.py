"""What each part of the report shows, made from report.json: one file a part or two, in the page's order.

A view returns what its template (templates/sections/<key>.jinja) shows, None where the night has nothing of it.
"""

from __future__ import annotations

from components.publish_report.page import Section
from components.publish_report.sections import (
    comparison,
    examples,
    experiment,
    gates,
    lineage,
    steps,
    training,
    versions,
)

SECTIONS = [
    Section("comparison", "Challenger against champion", "evaluate_ranker", comparison.challenger_against_champion),
    Section("off_policy", "Off-policy estimates", "evaluate_ranker", comparison.off_policy),
    Section("slices", "Slices, worst first", "evaluate_ranker", comparison.slices),
    Section("versions", "The last versions", "evaluate_ranker", versions.last),
    Section("examples", "Example requests", "evaluate_ranker", examples.requests),
    Section("gates", "Data gates and drift", "check_logs", gates.gates),
    Section("training", "Training", "train_reward", training.training),
    Section("experiment", "A/B test in the simulated world", "", experiment.of_night),
    Section("steps", "Steps", "", steps.steps),
    Section("lineage", "Lineage", "", lineage.lineage),
]
"""In the order in which a person asks: what was decided and why, is it true for everybody, has it been like this, what
does it look like, can the data be trusted, how was it trained, where did the time go, what exactly was it."""
