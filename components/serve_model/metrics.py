"""What the ranking service counts, for Prometheus (GET /metrics)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

# Before Feast: importing that sets PROMETHEUS_MULTIPROC_DIR, and this library would keep every number in files.
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from components.serve_model.champion import Models
    from components.serve_model.ranking import Asked, Ranked

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)
SIZES = (1, 2, 4, 8, 16, 32, 64)
FALLBACKS = ("unknown_user", "missing_features", "store_away", "model_failed", "no_champion")
OUTCOMES = ("answered", "invalid", "overloaded", "not_kept", "failed")
"""Of a body: answered; refused with a 4xx; too many waited; feedback that the disk did not take; a bug of ours."""


class Metrics:
    """One registry a service: several in one process, as in tests, do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"goalrank_{name}", about, labels, registry=self.registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"goalrank_{name}", about, labels, registry=self.registry)

        self.seconds = Histogram(
            "goalrank_request_seconds",
            "From a request's body to its answer",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.requests = counter(
            "requests_total",
            f"Bodies by endpoint and outcome: {', '.join(OUTCOMES)}",
            "endpoint",
            "outcome",
        )
        self.answers = counter("answers_total", "Lists served, by the version that answered", "version")
        self.fallbacks = counter("fallbacks_total", "Lists served without everything a list needs", "kind")
        for kind in FALLBACKS:
            self.fallbacks.labels(kind)  # from the start: Prometheus sees no increase in a series that begins with it
        self.explored = counter("explored_total", "Lists that were sampled on purpose")
        self.held_back = counter("held_back_total", "Lists made by the version before the champion")
        self.repeated = counter("repeated_total", "Requests refused because their id was used before")
        self.batch = Histogram(
            "goalrank_batch_requests", "Requests answered together", buckets=SIZES, registry=self.registry
        )
        self.swaps = counter("swaps_total", "New champions: swapped in, or refused", "outcome")
        self.registry_away = counter("registry_away_total", "Looks at the registry that failed")
        self.newest = gauge(
            "newest_version_timestamp_seconds", "When a night last got as far as registering a version, Unix time"
        )
        self.info = _ModelInfo()
        self.registry.register(self.info)
        self.exploration = gauge("exploration_share", "Share of requests answered with a sampled list")
        self.holdback = gauge("holdback_share", "Share of users answered by the version before the champion")
        self.trial = gauge("trial", "1 where this server serves a version on trial, whatever the registry says")
        self.depth = gauge("queue_depth", "Requests waiting to be answered")

    def serving(self, models: Models) -> None:
        """Say which versions answer now."""
        self.info.models = models
        self.holdback.set(models.holdback if models.previous is not None else 0.0)

    def follow(self, name: str, about: str, label: str, values: Callable[[], dict[str, float]]) -> None:
        """A counter kept elsewhere, read when it is asked for: a value for each value of its label."""
        self.registry.register(_Followed(f"goalrank_{name}", about, label, values))

    def ranked(self, asked: Sequence[Asked], answers: Sequence[Ranked], champion: str) -> None:
        """Count a batch of lists; `champion` is the version number that is nobody's holdback."""
        self.batch.observe(len(answers))
        versions: dict[str, int] = {}
        for answer in answers:
            versions[answer.model_version] = versions.get(answer.model_version, 0) + 1
            if answer.fallback is not None:
                self.fallbacks.labels(answer.fallback).inc()
            if answer.explored:
                self.explored.inc()
        for version, count in versions.items():
            self.answers.labels(version).inc(count)
            if version != champion:
                self.held_back.inc(count)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class _ModelInfo(Collector):
    """1 for each version that answers; a version that no longer does is gone."""

    models: Models | None = None

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("goalrank_model_info", "Versions that answer", labels=("name", "version", "role"))
        models = self.models
        for role, one in (("champion", models.champion), ("previous", models.previous)) if models else ():
            if one is not None:
                family.add_metric((one.version.name, one.version.version, role), 1.0)
        yield family


class _Followed(Collector):
    def __init__(self, name: str, about: str, label: str, values: Callable[[], dict[str, float]]) -> None:
        self._name, self._about, self._label, self._values = name, about, label, values

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._about, labels=(self._label,))
        for value, count in self._values().items():
            family.add_metric((value,), count)
        yield family
