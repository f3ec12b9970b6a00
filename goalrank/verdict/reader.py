"""Reading a verdict back: strictly, and only for the version, snapshot and night it was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, overload

from pydantic import ValidationError

from goalrank.errors import ModelRefused
from goalrank.verdict.document import FORMAT, MAXIMUM_BYTES, EvaluationVerdict, ModelVersion, ServingVerdict
from goalrank.verdict.thresholds import CLOCK_SKEW_HOURS, MAX_AGE_HOURS


@overload
def load_verdict(path: str | Path, kind: Literal["evaluation"]) -> EvaluationVerdict: ...
@overload
def load_verdict(path: str | Path, kind: Literal["serving"]) -> ServingVerdict: ...
def load_verdict(path: str | Path, kind: Literal["evaluation", "serving"]) -> EvaluationVerdict | ServingVerdict:
    """Read a verdict back, strictly.

    Raises:
        ModelRefused: the file is missing, too large, no JSON, of another format, has a key twice, a NaN, an unknown or
            missing field, a wrong type, an unknown decision, or contradicts itself. The message names the file and
            each fault.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise ModelRefused(f"{kind} verdict {path} cannot be read ({error.strerror}); run that step again") from None
    if len(content) > MAXIMUM_BYTES:
        raise ModelRefused(f"{kind} verdict {path} is larger than {MAXIMUM_BYTES} bytes, so it is not a verdict")
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{kind} verdict {path} is not valid JSON ({error}); run that step again") from None
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is int and found != FORMAT:
        raise ModelRefused(
            f"{kind} verdict {path} is malformed: format {found} found, expected {FORMAT} (another release wrote it); "
            "run that step again"
        )
    schema: type[EvaluationVerdict] | type[ServingVerdict]
    schema = EvaluationVerdict if kind == "evaluation" else ServingVerdict
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}" for fault in error.errors()[:5]
        )
        raise ModelRefused(f"{kind} verdict {path} is malformed: {faults}; run that step again") from None


def require_about(
    verdict: EvaluationVerdict | ServingVerdict, model: ModelVersion, snapshot_id: str, date: str
) -> None:
    """Refuse a verdict that is about another version, other weights, another snapshot or another night.

    Raises:
        ModelRefused: naming what was found and expected.
    """
    pairs = [
        ("model", verdict.model.name, model.name),
        ("version", verdict.model.version, model.version),
        ("weights", verdict.model.weights_sha256, model.weights_sha256),
        ("snapshot", verdict.snapshot_id, snapshot_id),
        ("date", verdict.date, date),
    ]
    wrong = [f"{what} {found}, expected {expected}" for what, found, expected in pairs if found != expected]
    if wrong:
        raise ModelRefused(f"the {verdict.kind} verdict is about something else: {'; '.join(wrong)}")


def require_recent(verdict: EvaluationVerdict | ServingVerdict) -> None:
    """Refuse a verdict older than MAX_AGE_HOURS, or from the future.

    Raises:
        ModelRefused: saying how old it is and how to have it judged anew.
    """
    hours = verdict.age_hours()
    if not -CLOCK_SKEW_HOURS <= hours <= MAX_AGE_HOURS:
        raise ModelRefused(
            f"the {verdict.kind} verdict was judged at {verdict.judged_at}, {hours:.0f} hours ago, expected at most "
            f"{MAX_AGE_HOURS}; run the night again (`goalrank nightly --date {verdict.date}`) so that it is judged anew"
        )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
