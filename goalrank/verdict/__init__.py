"""Champion against challenger: the statistics, the decision, and the document that carries it.

    thresholds.py   every number the decision rests on, with its reason
    statistics.py   paired bootstrap over users, one set of resamples for all comparisons of a night
    slices.py       non-inferiority on the slices that a mean can hide
    decision.py     decide(): rewards and gates in, a verdict out
    gates.py        checks that others measured: off-policy estimate, latency, size
    consistency.py  what a yes must carry, recomputed from its numbers
    document.py     the verdict's schema and its JSON
    reader.py       reading it back, strictly: what is malformed is a no
    schema.py       docs/verdict.schema.json

A verdict is about one model version and one snapshot.
"""

from goalrank.verdict.decision import decide
from goalrank.verdict.document import (
    FORMAT,
    MAXIMUM_BYTES,
    Check,
    Difference,
    EvaluationVerdict,
    ModelVersion,
    OffPolicyEstimate,
    OffPolicySection,
    ServingVerdict,
    Slice,
    Status,
    judged_now,
    to_json,
)
from goalrank.verdict.gates import (
    OFF_POLICY_SETTINGS,
    off_policy_gate,
    off_policy_section,
    require_off_policy_setting,
    within_budget,
)
from goalrank.verdict.reader import load_verdict, require_about, require_recent
from goalrank.verdict.statistics import paired_bootstrap
from goalrank.verdict.thresholds import (
    ANCHOR_DAYS,
    ANCHOR_MARGIN,
    CONFIDENCE,
    FLOOR,
    LATENCY_BUDGET_MS,
    MAX_AGE_HOURS,
    MINIMUM_SLICE_USERS,
    MINIMUM_USERS,
    PROMOTION_CONFIDENCE,
    RESAMPLES,
    SIZE_BUDGET_MB,
    SLICE_MARGIN,
    SUPERIORITY,
)

__all__ = [
    "ANCHOR_DAYS",
    "ANCHOR_MARGIN",
    "CONFIDENCE",
    "FLOOR",
    "FORMAT",
    "LATENCY_BUDGET_MS",
    "MAXIMUM_BYTES",
    "MAX_AGE_HOURS",
    "MINIMUM_SLICE_USERS",
    "MINIMUM_USERS",
    "OFF_POLICY_SETTINGS",
    "PROMOTION_CONFIDENCE",
    "RESAMPLES",
    "SIZE_BUDGET_MB",
    "SLICE_MARGIN",
    "SUPERIORITY",
    "Check",
    "Difference",
    "EvaluationVerdict",
    "ModelVersion",
    "OffPolicyEstimate",
    "OffPolicySection",
    "ServingVerdict",
    "Slice",
    "Status",
    "decide",
    "judged_now",
    "load_verdict",
    "off_policy_gate",
    "off_policy_section",
    "paired_bootstrap",
    "require_about",
    "require_off_policy_setting",
    "require_recent",
    "to_json",
    "within_budget",
]
