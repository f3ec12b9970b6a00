"""The fresh process: loads one registered version as the ranking service does and answers requests from a file.

    python -m components.smoke_serve.server QUESTION ANSWER

QUESTION  {"tracking_uri", "feast_uri", "model": {name, version, weights_sha256}, "folder", "requests": [body, ...]}
ANSWER    {"answers": [{"items", "fallback", "model_version", "milliseconds"} or {"refused": reason}, ...]}
          or {"error": kind of the exit, "reason"}
The model directory is left in "folder", for the asking process to compare with.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from components.step import write_atomic
from goalrank.errors import GoalRankError, UsageError


def answer(question: dict[str, Any]) -> list[dict[str, Any]]:
    """An answer to each request, in order; a request the service would not accept says why.

    Raises:
        CheckpointDamaged, ModelRefused: the version cannot be served.
        TryAgain: MLflow or the feature store is away.
    """
    import torch

    from components import registry
    from components.feature_store import OnlineReader
    from components.serve_model.bodies import as_sent, parse_rank
    from components.serve_model.champion import loaded
    from components.serve_model.feature_rows import FeatureRows
    from components.serve_model.ranking import Ranking
    from goalrank.verdict import ModelVersion

    torch.set_num_threads(1)  # as the service does
    version = ModelVersion.model_validate(question["model"])
    client = registry.connect(question["tracking_uri"])
    with registry.reaching(question["tracking_uri"]):
        directory = registry.fetch_model(client, version, question["folder"])
    features = FeatureRows(OnlineReader(question["feast_uri"]), read_seconds=60.0)
    ranking = Ranking(features, loaded(version, directory), exploration=0.0)
    answers: list[dict[str, Any]] = []
    for request in question["requests"]:
        begun = time.perf_counter()
        try:
            ranked = ranking.rank(parse_rank(as_sent(request)))
        except UsageError as refusal:
            answers.append({"refused": str(refusal)})
            continue
        answers.append(
            {
                "items": ranked.items,
                "fallback": ranked.fallback,
                "model_version": ranked.model_version,
                "milliseconds": (time.perf_counter() - begun) * 1000,
            }
        )
    return answers


def main(question_file: str, answer_file: str) -> None:
    """Answer the question in one file into the other; errors raised on purpose are an answer too."""
    question = json.loads(Path(question_file).read_text(encoding="utf-8"))
    try:
        document: dict[str, Any] = {"answers": answer(question)}
    except GoalRankError as error:
        document = {"error": error.kind, "reason": str(error)}
    write_atomic(Path(answer_file), json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
