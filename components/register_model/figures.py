"""What a model card and a groups file say, as MLflow metrics; and what in them is not finite."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

CURVE_POINTS = 200
"""Points kept of a curve: enough to see its shape, few enough to log in one call."""


def metrics_of(document: dict[str, Any], prefix: str) -> Iterator[tuple[str, int, float]]:
    """(name, step, value) of every number in a nested document.

    A list of [step, value] pairs or of numbers is a curve (downsampled, its last point kept); other lists, text and
    null are no metrics.
    """
    for key, value in document.items():
        name = metric_name(f"{prefix}.{key}")
        if isinstance(value, dict):
            yield from metrics_of(value, f"{prefix}.{key}")
        elif _is_number(value):
            yield name, 0, float(value)
        elif isinstance(value, list):
            for step, height in _thinned(_curve(value)):
                yield name, step, height


def metric_name(text: str) -> str:
    """A name MLflow accepts: H@6 becomes H_at_6."""
    return re.sub(r"[^\w\-. /]", "_", text.replace("@", "_at_"))


def not_finite(document: Any, path: str) -> list[str]:
    """Paths of all numbers in a nested document that are NaN or infinite."""
    if isinstance(document, dict):
        return [found for key, value in document.items() for found in not_finite(value, f"{path}.{key}")]
    if isinstance(document, list):
        return [found for index, value in enumerate(document) for found in not_finite(value, f"{path}[{index}]")]
    return [path] if isinstance(document, float) and not math.isfinite(document) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _curve(values: list[Any]) -> list[tuple[int, float]]:
    if values and all(_is_number(value) for value in values):
        return [(step, float(value)) for step, value in enumerate(values)]
    if values and all(isinstance(v, list) and len(v) == 2 and _is_number(v[0]) and _is_number(v[1]) for v in values):
        return [(int(step), float(height)) for step, height in values]
    return []


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= CURVE_POINTS:
        return points
    stride = math.ceil(len(points) / CURVE_POINTS)
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
