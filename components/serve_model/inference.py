"""The Open Inference Protocol, version 2, over REST: what KServe and its clients speak.

    GET  /v2                            GET  /v2/health/live            GET /v2/health/ready
    GET  /v2/models/goalrank-ranker     GET  /v2/models/goalrank-ranker/ready
    POST /v2/models/goalrank-ranker/infer
    each model path also as /v2/models/goalrank-ranker/versions/<version>...

Inputs are tensors of B requests with N candidates each: user_id INT64 [B], candidates INT64 [B, N], scores FP32 or FP64
[B, N], optionally list_length INT64 [1] and request_id BYTES [B]. Without a version the request is one like /rank's:
the holdback and exploration apply and it is logged; a request_id used before refuses the whole body, since there is one
answer to all of it. With a version, one of the two that serve, that version answers, nothing is explored and nothing is
logged: a probe. What is wrong is said in {"error": ...} with a 4xx.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from components import registry
from components.serve_model.bodies import MAX_BATCH, MAX_CANDIDATES, RankBody, reason_of
from components.serve_model.champion import Champion
from components.serve_model.served_log import RepeatedRequestError
from components.serve_model.service import Answer, Service
from goalrank import __version__
from goalrank.errors import UsageError
from goalrank.schema import LIST_LENGTH

INPUTS: dict[str, tuple[tuple[str, ...], list[int]]] = {
    "user_id": (("INT64",), [-1]),
    "candidates": (("INT64",), [-1, -1]),
    "scores": (("FP32", "FP64"), [-1, -1]),
    "list_length": (("INT64", "INT32"), [1]),
    "request_id": (("BYTES",), [-1]),
}
"""Name -> (data types, shape; -1 is free). The last two may be left out."""
REQUIRED = ("user_id", "candidates", "scores")
OUTPUTS: dict[str, tuple[str, list[int]]] = {
    "items": ("INT64", [-1, -1]),
    "request_id": ("BYTES", [-1]),
    "model_version": ("BYTES", [-1]),
    "fallback": ("BYTES", [-1]),
    "explored": ("BOOL", [-1]),
}
PLATFORM = "goalrank_torch"
INFER = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")
"""The paths of `infer`."""

Counted = Callable[[str, Callable[[Request], Awaitable[Response]]], Callable[[Request], Any]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: dict[str, Any] | None = None


class _Tensor(_Part):
    name: Annotated[str, Field(strict=True, max_length=64)]
    shape: Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(max_length=2)]
    datatype: Annotated[str, Field(strict=True, max_length=16)]
    data: list[Any]


class _Wanted(_Part):
    name: Annotated[str, Field(strict=True, max_length=64)]


class _Inference(_Part):
    id: Annotated[str, Field(strict=True, max_length=256)] | None = None
    inputs: Annotated[list[_Tensor], Field(max_length=len(INPUTS))]
    outputs: Annotated[list[_Wanted], Field(max_length=len(OUTPUTS))] | None = None


def routes(service: Service, counted: Counted) -> list[Route]:
    """The protocol's routes; `counted` wraps the one that answers."""

    async def server(request: Request) -> Response:
        return _json({"name": "goalrank", "version": __version__, "extensions": []})

    async def live(request: Request) -> Response:
        return _json({"live": True})

    async def ready(request: Request) -> Response:
        return _json({"ready": service.ready}, 200 if service.ready else 503)

    async def metadata(request: Request) -> Response:
        _served(service, request)
        models = service.ranking.models
        versions = [one.version.version for one in (models.champion, models.previous) if one is not None]
        document = {
            "name": registry.RANKER,
            "versions": versions,
            "platform": PLATFORM,
            "inputs": [{"name": name, "datatype": kinds[0], "shape": shape} for name, (kinds, shape) in INPUTS.items()],
            "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in OUTPUTS.items()],
        }
        return _json(document)

    async def model_ready(request: Request) -> Response:
        _served(service, request)
        return _json({"name": registry.RANKER, "ready": service.ready}, 200 if service.ready else 503)

    async def infer(request: Request) -> Response:
        probed = _served(service, request)
        if "inference-header-content-length" in request.headers:
            raise HTTPException(400, "binary tensors are not read here; send their data as JSON")
        try:
            asked = _Inference.model_validate_json(request.scope["body"])
            bodies = _bodies(asked)
        except ValidationError as error:
            return _json({"error": reason_of(error.errors())}, 400)
        except UsageError as error:
            return _json({"error": str(error)}, 400)
        # One answer for the whole body: it is given, and logged, for all of its requests or for none.
        answers = await (service.rank(bodies, together=True) if probed is None else service.probe(bodies, probed))
        for one in answers:
            if isinstance(one, RepeatedRequestError):
                return _json({"error": str(one)}, 409)
        return _json(_document(asked, [one for one in answers if isinstance(one, Answer)], service))

    model = "/v2/models/{name}"
    return [
        *(
            Route(f"{base}/infer", counted("infer", infer), methods=["POST"])
            for base in (model, f"{model}/versions/{{version}}")
        ),
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        *(
            Route(f"{base}{end}", handler)
            for base in (model, f"{model}/versions/{{version}}")
            for end, handler in (("", metadata), ("/ready", model_ready))
        ),
    ]


def _served(service: Service, request: Request) -> Champion | None:
    """The version a path names, None where it names none.

    Raises:
        HTTPException: 404, neither model nor version are served here.
    """
    name, version = request.path_params["name"], request.path_params.get("version")
    if name != registry.RANKER:
        raise HTTPException(404, f"model {name[:64]!r} is not served here, expected {registry.RANKER}")
    if version is None:
        return None
    found = service.ranking.models.by_version(version)
    if found is None:
        raise HTTPException(404, f"version {version[:64]!r} of {name} is not served here; see /v2/models/{name}")
    return found


def _bodies(asked: _Inference) -> list[RankBody]:
    """The tensors as requests.

    Raises:
        UsageError: tensors are missing, repeated, unknown, of the wrong type or shape, or hold what no request may.
    """
    tensors = {tensor.name: tensor for tensor in asked.inputs}
    if len(tensors) != len(asked.inputs):
        raise UsageError("an input tensor is given twice, expected each once")
    strange, missing = sorted(tensors.keys() - INPUTS), sorted(set(REQUIRED) - tensors.keys())
    if strange or missing:
        raise UsageError(f"input tensors unknown: {strange}, missing: {missing}; see /v2/models/{registry.RANKER}")
    for wanted in asked.outputs or []:
        if wanted.name not in OUTPUTS:
            raise UsageError(f"output tensor {wanted.name!r} is unknown, expected one of {', '.join(OUTPUTS)}")
    shape = tensors["candidates"].shape
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_BATCH or not 1 <= shape[1] <= MAX_CANDIDATES:
        raise UsageError(f"candidates has shape {shape}, expected [1..{MAX_BATCH}, 1..{MAX_CANDIDATES}]")
    requests, candidates = shape
    flat = {name: _flat(tensor, requests, candidates) for name, tensor in tensors.items()}
    length = flat.get("list_length", [LIST_LENGTH])[0]
    bodies = []
    for row in range(requests):
        span = slice(row * candidates, (row + 1) * candidates)
        offered = [
            {"item_id": item, "score": score}
            for item, score in zip(flat["candidates"][span], flat["scores"][span], strict=True)
        ]
        document = {"user_id": flat["user_id"][row], "candidates": offered, "list_length": length}
        if "request_id" in flat:
            document["request_id"] = flat["request_id"][row]
        try:
            bodies.append(RankBody.model_validate(document))
        except ValidationError as error:
            raise UsageError(f"request {row}: {reason_of(error.errors())}") from None
    return bodies


def _flat(tensor: _Tensor, requests: int, candidates: int) -> list[Any]:
    """The tensor's values, row by row.

    Raises:
        UsageError: type or shape are not those expected, or the data are not of that shape.
    """
    kinds, free = INPUTS[tensor.name]
    if tensor.datatype not in kinds:
        raise UsageError(f"{tensor.name} has datatype {tensor.datatype!r}, expected {' or '.join(kinds)}")
    expected = {1: [[requests], [requests, 1]], 2: [[requests, candidates]]}[len(free)]
    if free == [1]:
        expected = [[1]]
    if tensor.shape not in expected:
        raise UsageError(f"{tensor.name} has shape {tensor.shape}, expected {expected[0]}")
    values = tensor.data
    if len(tensor.shape) == 2 and any(isinstance(value, list) for value in values):
        if len(values) != tensor.shape[0] or not all(
            isinstance(row, list) and len(row) == tensor.shape[1] for row in values
        ):
            raise UsageError(f"the data of {tensor.name} are not {tensor.shape[0]} rows of {tensor.shape[1]} values")
        values = [value for row in values for value in row]
    count = 1
    for size in tensor.shape:
        count *= size
    if len(values) != count:
        raise UsageError(f"{tensor.name} holds {len(values)} values, expected {count}")
    if None in values:
        raise UsageError(f"{tensor.name} holds null, expected values alone; leave out an optional tensor that has none")
    return values


def _document(asked: _Inference, answers: list[Answer], service: Service) -> dict[str, Any]:
    lists = [one.ranked for one in answers]
    columns: dict[str, tuple[list[int], list[Any]]] = {
        "items": ([len(lists), len(lists[0].items)], [item for one in lists for item in one.items]),
        "request_id": ([len(lists)], [one.request_id for one in answers]),
        "model_version": ([len(lists)], [one.model_version for one in lists]),
        "fallback": ([len(lists)], [one.fallback or "" for one in lists]),
        "explored": ([len(lists)], [one.explored for one in lists]),
    }
    wanted = [one.name for one in asked.outputs] if asked.outputs else list(OUTPUTS)
    versions = {one.model_version for one in lists}
    document: dict[str, Any] = {
        "model_name": registry.RANKER,
        # Held-back users in the same body have another one: each row says its own.
        "model_version": versions.pop() if len(versions) == 1 else service.ranking.champion.version.version,
        "outputs": [
            {"name": name, "shape": columns[name][0], "datatype": OUTPUTS[name][0], "data": columns[name][1]}
            for name in wanted
        ],
    }
    return document | ({} if asked.id is None else {"id": asked.id})


def _json(document: Any, status: int = 200) -> Response:
    return Response(to_json(document), status, media_type="application/json")
