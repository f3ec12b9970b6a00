"""Which metrics the service exports, asked of its own registry, and which a PromQL expression reads."""

from __future__ import annotations

import functools
import re
from types import SimpleNamespace

from components.serve_model.metrics import Metrics
from components.serve_model.service import Service

_NAME = re.compile(r"(?<![\w:\"])[a-zA-Z_:][a-zA-Z0-9_:]*(?![\w:]*\s*\()")
_GROUPING = re.compile(r"\b(?:by|without)\s*\([^)]*\)")
_NOT_METRICS = re.compile(
    r"\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[[^]]*\]|\b(?:on|ignoring|group_left|group_right)\s*\([^)]*\)"
    r"|\b(?:group_left|group_right|unless|and|or|bool|offset)\b"
)


def idle_service() -> Service:
    """A service that knows no model and answers nobody: its metrics and routes are those of any other."""
    ranking = SimpleNamespace(
        models=SimpleNamespace(champion=None, previous=None, holdback=0.0),
        exploration=0.0,
        misses={},
        features=SimpleNamespace(counts=dict),
        answered_alone=0,
    )
    return Service(ranking, SimpleNamespace(unlogged=0), Metrics())


@functools.cache
def metrics() -> frozenset[str]:
    """Names of every series of a running service, labelled ones included."""
    found = set()
    for family in idle_service().metrics.registry.collect():
        # A labelled metric that nothing was counted in has no sample yet: its type says how its series are called.
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        found |= {f"{family.name}{end}" for end in ends}
    return frozenset(found)


def read_by(expression: str) -> set[str]:
    """Names of the metrics of an expression: what is neither a function, a label, a text nor a keyword."""
    return set(_NAME.findall(_NOT_METRICS.sub(" ; ", _GROUPING.sub(" ", expression))))
