"""The verdict's JSON Schema, for those who read verdicts without this code: `python -m goalrank.verdict.schema`.

It says what fields and types a verdict has; what it cannot say (no promotion over a failed check) load_verdict does.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from goalrank.verdict.document import FORMAT, EvaluationVerdict, ServingVerdict


def verdict_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of both kinds of verdict, told apart by `kind`."""
    either: TypeAdapter[Any] = TypeAdapter(Annotated[EvaluationVerdict | ServingVerdict, Field(discriminator="kind")])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"GoalRank verdict, format {FORMAT}",
        **either.json_schema(),
    }


def schema_text() -> str:
    """The content of docs/verdict.schema.json."""
    return json.dumps(verdict_schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
