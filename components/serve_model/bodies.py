"""What the service accepts and answers, and its limits. What breaks them is refused with the reason, never served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator, field_validator

from goalrank.errors import UsageError
from goalrank.schema import LIST_LENGTH, REQUEST_ID_PATTERN, SMALLEST_ID

MAX_BODY_BYTES = 256 * 1024
MAX_BATCH = 64
"""Requests in one body."""
MAX_CANDIDATES = 1000
MAX_LIST_LENGTH = 50
MAX_ABSOLUTE_SCORE = 1e12
"""Scores are standardised within the request; beyond this their squares would overflow."""
MAX_WATCH_SECONDS = 86_400.0
ISSUED_PREFIX = "served-"
"""Of request ids that the service makes itself."""

Id = Annotated[int, Field(strict=True, ge=SMALLEST_ID, le=2**63 - 1)]
RequestId = Annotated[str, Field(strict=True, pattern=REQUEST_ID_PATTERN)]
Flag = Annotated[int, Field(strict=True, ge=0, le=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Candidate(_Body):
    """One item of the retriever, with its score."""

    item_id: Id
    score: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_ABSOLUTE_SCORE, le=MAX_ABSOLUTE_SCORE)]


class RankBody(_Body):
    """A ranking request. Without `request_id` the service makes one."""

    user_id: Id
    candidates: Annotated[list[Candidate], Field(min_length=1, max_length=MAX_CANDIDATES)]
    request_id: RequestId | None = None
    list_length: Annotated[int, Field(strict=True, ge=1, le=MAX_LIST_LENGTH)] = LIST_LENGTH

    @property
    def item_ids(self) -> list[int]:
        """The candidates' ids, in the order in which lists index them."""
        return [candidate.item_id for candidate in self.candidates]

    @property
    def scores(self) -> list[float]:
        """The retriever's scores of the candidates."""
        return [candidate.score for candidate in self.candidates]

    @field_validator("candidates")
    @classmethod
    def _distinct(cls, candidates: list[Candidate]) -> list[Candidate]:
        if len({candidate.item_id for candidate in candidates}) < len(candidates):
            seen: set[int] = set()
            for candidate in candidates:
                if candidate.item_id in seen:
                    raise ValueError(f"item {candidate.item_id} found twice, expected distinct items")
                seen.add(candidate.item_id)
        return candidates

    @field_validator("request_id")
    @classmethod
    def _not_ours(cls, request_id: str | None) -> str | None:
        if request_id is not None and request_id.startswith(ISSUED_PREFIX):
            raise ValueError(f"ids beginning with {ISSUED_PREFIX} are made by the service; choose another")
        return request_id


class FeedbackBody(_Body):
    """What the user did with the item at one position (1 is the top) of a served list."""

    request_id: RequestId
    position: Annotated[int, Field(strict=True, ge=1, le=MAX_LIST_LENGTH)]
    click: Flag = 0
    like: Flag = 0
    watch_seconds: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_WATCH_SECONDS)] | None = None


@dataclass(frozen=True)
class Refused:
    """A request that is not answered, and why."""

    reason: str
    status: int = 422


def _or_refused(value: object, validate: Callable[[object], RankBody]) -> RankBody | Refused:
    try:
        return validate(value)
    except ValidationError as error:
        return Refused(reason_of(error.errors()))


_BATCH: TypeAdapter[list[RankBody | Refused]] = TypeAdapter(
    Annotated[
        list[Annotated[RankBody, WrapValidator(_or_refused)]],  # type: ignore[arg-type]  # Refused comes of it too
        Field(min_length=1, max_length=MAX_BATCH),
    ]
)


def read_rank(content: bytes) -> RankBody | list[RankBody | Refused]:
    """The body of /rank: one request (a JSON object), or up to MAX_BATCH of them (an array), each good or not.

    Raises:
        UsageError: it is neither; or a single request that is not valid.
    """
    try:
        if content.lstrip(b" \t\r\n").startswith(b"["):
            return _BATCH.validate_json(content)
        return RankBody.model_validate_json(content)
    except ValidationError as error:
        raise UsageError(reason_of(error.errors())) from None


def reason_of(errors: list[dict[str, Any]] | list[Any]) -> str:
    """Pydantic's errors as one line: where, and what was expected."""
    parts = []
    for error in errors[:3]:
        where = ".".join(str(part) for part in error["loc"] if part != "body")
        parts.append(f"{where}: {error['msg']}" if where else str(error["msg"]))
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return "; ".join(parts) + more


def as_sent(logged: dict[str, Any]) -> dict[str, Any]:
    """A logged request as its client sent it: an id that the service made was not in it, and is taken from nobody."""
    issued = str(logged.get("request_id")).startswith(ISSUED_PREFIX)
    return {name: value for name, value in logged.items() if name != "request_id" or not issued}


def parse_rank(document: object) -> RankBody:
    """A request that came from elsewhere than HTTP.

    Raises:
        UsageError: it is not a valid request.
    """
    try:
        return RankBody.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"the request is not valid: {reason_of(error.errors())}") from None
