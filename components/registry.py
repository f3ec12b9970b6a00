"""The one way into MLflow: tracking client, registered versions, aliases, model files.

Names and aliases used everywhere: champion (serving), challenger (tonight's), previous (what rollback returns to).
MLflow is imported inside the functions: its import costs seconds, which the caller books as a tool's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pydantic import ValidationError

from goalrank import naming, schema
from goalrank.errors import CheckpointDamaged, GoalRankError, ModelRefused, TryAgain
from goalrank.verdict import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

RANKER = "goalrank-ranker"
REWARD = "goalrank-reward"
EXPERIMENT = "goalrank-nightly"

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"

FEATURE_SET = "feature_set"
"""Tag of every registered version: goalrank.schema.feature_set() of the release that trained it."""

MODEL_FOLDER = "model"
"""Name under which a model directory lies among a registered version's artifacts."""

_AWAY = ("Connection", "Timeout", "ReadTimeout", "OperationalError", "InterfaceError", "MaxRetryError")
_AWAY_TEXT = re.compile(
    r"connection (?:error|refused|reset|aborted)|max retries|timed? ?out|unable to open database|database is locked"
    r"|could not connect|API request to .* failed with (?:exception|timeout)|(?:error code|status) 50[234]",
    re.IGNORECASE,
)


def offline_switches() -> None:
    """No telemetry, and a server that is away is given up on after seconds. Set before MLflow is imported."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@contextmanager
def reaching(tracking_uri: str) -> Iterator[None]:
    """Turn "the server or its database is away" into TryAgain; other errors pass.

    Raises:
        TryAgain: a connection failed, timed out or the database could not be opened.
    """
    try:
        yield
    except GoalRankError:
        raise
    except Exception as error:
        if _is_away(error):
            raise TryAgain(
                f"MLflow at {naming.without_password(tracking_uri)} does not answer ({_first_line(error)}); "
                "start it or mend the tracking URI, then run the same command again"
            ) from error
        raise


def connect(tracking_uri: str) -> MlflowClient:
    """A client of that tracking server and registry, and MLflow's own default set to it.

    Raises:
        UsageError: the URI has a trap in it.
        TryAgain: it does not answer.
    """
    naming.require_address("tracking URI", tracking_uri)
    offline_switches()
    import mlflow

    # SQLAlchemy tells MLflow's authors, on every start, of something only they can change.
    warnings.filterwarnings("ignore", message=".*noload.*", module="mlflow")
    with reaching(tracking_uri):
        _probe_database(tracking_uri)
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        client.search_experiments(max_results=1)
    return client


def exists(tracking_uri: str) -> bool:
    """False where the URI names a local database that is not there yet (to connect would make it)."""
    path = _database_file(naming.require_address("tracking URI", tracking_uri))
    return path is None or path.exists()


def experiment_id(client: MlflowClient, tracking_uri: str, name: str = EXPERIMENT) -> str:
    """The experiment of that name, made if need be; beside a local database its files lie beside it too."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = _database_file(tracking_uri)
        # Without this MLflow writes ./mlruns into whatever folder the step happens to run in.
        location = None if database is None else (database.parent / "mlartifacts" / name).as_uri()
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another run made it meanwhile
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


# ------------------------------------------------------------------------------------------------------------ aliases


def by_alias(client: MlflowClient, name: str, alias: str) -> RegisteredVersion | None:
    """The version an alias points to, or None where neither model nor alias exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def identity(version: RegisteredVersion) -> ModelVersion:
    """Name, number and weights digest of a registered version.

    Raises:
        ModelRefused: the version carries no such digest: it was not registered by a night.
    """
    digest = version.tags.get("weights_sha256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ModelRefused(
            f"{version.name} version {version.version} has no tag weights_sha256 (found {digest!r}), so its weights "
            "cannot be verified; register models through the night, or move the alias to a version that has it"
        )
    return ModelVersion(name=version.name, version=str(version.version), weights_sha256=digest)


def champion(client: MlflowClient, name: str = RANKER) -> ModelVersion | None:
    """The champion's identity, or None before the first promotion."""
    version = by_alias(client, name, CHAMPION)
    return None if version is None else identity(version)


def point(client: MlflowClient, name: str, alias: str, version: str | None) -> None:
    """Set an alias to a version; None takes the alias away."""
    if version is None:
        if by_alias(client, name, alias) is not None:
            client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, version)


def registered(client: MlflowClient, name: str, version: str) -> RegisteredVersion | None:
    """One version by its number, or None where the registry has it no longer."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def require_feature_set(version: RegisteredVersion) -> None:
    """Refuse a version that was trained on features this release reads differently.

    Raises:
        ModelRefused: its tag `feature_set` is another than this release's, or it has none.
    """
    found, expected = version.tags.get(FEATURE_SET), schema.feature_set()
    if found == expected:
        return
    if not found:
        raise ModelRefused(
            f"{version.name} version {version.version} has no tag {FEATURE_SET}: an older release registered it, so it "
            f"may not read feature set {expected} as this one does; `goalrank migrate` gives a workspace's versions "
            "theirs"
        )
    what = f"was trained on feature set {found}"
    raise ModelRefused(
        f"{version.name} version {version.version} {what}, but this release reads feature set {expected}: it would "
        "answer from numbers it never learnt. Go back to the release that registered it, or leave it behind: "
        "`goalrank rollback --to none --reason ...` takes the alias away and the next night's challenger has the "
        "absolute floor to pass (--allow-bootstrap)"
    )


def version_tags(client: MlflowClient, name: str, version: str) -> dict[str, str]:
    """Tags of one version: run, snapshot_id, date, commit, preset, objective, seed, configuration, data_window,
    trained_until."""
    return dict(client.get_model_version(name, version).tags)


# -------------------------------------------------------------------------------------------------------- model files


def fetch_model(client: MlflowClient, wanted: ModelVersion, into: str | Path) -> Path:
    """Download one version's model directory (weights.safetensors, model.json) and verify its weights.

    Nothing of the version is executed: only the two files are read, and weights are safetensors. Whoever serves,
    evaluates or rolls back to a version gets its files here, so here its feature set is looked at too.

    Args:
        into: an existing folder; the model directory is made in it.

    Returns:
        the model directory, for goalrank.checkpoint.load_model.

    Raises:
        CheckpointDamaged: the weights are not those recorded at registration.
        ModelRefused: the version has no model directory, or was trained on another feature set than this release's.
    """
    import mlflow

    naming.require_name("registered model", wanted.name, ModelRefused)
    require_feature_set(client.get_model_version(wanted.name, wanted.version))
    target = Path(into) / f"{wanted.name}-{wanted.version}"
    with tempfile.TemporaryDirectory(dir=into) as aside:
        uri = f"models:/{wanted.name}/{wanted.version}"
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=aside))
        cards = list(found.rglob(f"{MODEL_FOLDER}/model.json"))
        if len(cards) != 1:
            raise ModelRefused(f"{uri} holds {len(cards)} model directories, expected 1; register the night again")
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(cards[0].parent, target)
    verify_weights(target, wanted)
    return target


def verify_weights(directory: str | Path, wanted: ModelVersion) -> None:
    """Compare a model directory's weights with the digest the registry recorded.

    Raises:
        CheckpointDamaged: file missing, or its SHA-256 another one than in model.json or in the registry.
    """
    from goalrank.checkpoint import read_model_card  # brings torch, which moving aliases does not need

    weights = Path(directory) / "weights.safetensors"
    if not weights.is_file():
        raise CheckpointDamaged(f"{wanted.name} version {wanted.version}: {weights.name} is missing")
    found = file_sha256(weights)
    recorded = read_model_card(str(directory)).get("weights_sha256")
    if not found == recorded == wanted.weights_sha256:
        raise CheckpointDamaged(
            f"{wanted.name} version {wanted.version}: weights have SHA-256 {found}, model.json says {recorded}, the "
            f"registry {wanted.weights_sha256}; register the night again"
        )


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------------- registration


def read_registration(path: str | Path) -> dict[str, Any]:
    """The registration artifact, with every field the later steps use.

    Raises:
        ModelRefused: missing, malformed, or without a field.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"registration {path} cannot be read ({error}); run register_model again") from None
    if not isinstance(document, dict):
        raise ModelRefused(f"registration {path} is a {type(document).__name__}, expected an object")
    for field in ("tracking_uri", "run_id", "snapshot_id", "date"):
        if not isinstance(document.get(field), str) or not document[field]:
            raise ModelRefused(f"registration {path} has no text in field {field!r}; run register_model again")
    naming.require_address("tracking URI of the registration", document["tracking_uri"], ModelRefused)
    naming.require_name("run id of the registration", document["run_id"], ModelRefused)
    naming.require_day("date of the registration", document["date"], ModelRefused)
    for model in ("ranker", "reward"):
        registered_identity(document, model)
    return document


def registered_identity(registration: dict[str, Any], model: str) -> ModelVersion:
    """Identity of the 'ranker' or 'reward' a registration names.

    Raises:
        ModelRefused: it is missing or malformed.
    """
    try:
        found = ModelVersion.model_validate(registration.get(model))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ModelRefused(f"the registration's {model} is malformed: {faults}; run register_model again") from None
    expected = {"ranker": RANKER, "reward": REWARD}[model]
    if found.name != expected:
        raise ModelRefused(f"the registration's {model} is called {found.name!r}, expected {expected!r}")
    return found


# ------------------------------------------------------------------------------------------------------------ private


def _database_file(tracking_uri: str) -> Path | None:
    """The file of an SQLite URI (sqlite:///relative or sqlite:////absolute), None for other URIs."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(unquote(tracking_uri.removeprefix("sqlite:///").partition("?")[0])).resolve()


def _probe_database(tracking_uri: str) -> None:
    """Open an SQLite file once ourselves: MLflow tries a broken one for more than a minute before it gives up."""
    path = _database_file(tracking_uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=20)) as connection:
            connection.execute("PRAGMA schema_version")


def _is_away(error: BaseException) -> bool:
    """True where the error, or one that caused it, says that server or database could not be reached."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ConnectionError, TimeoutError)):
            return True
        if any(word in type(seen).__name__ for word in _AWAY):
            return True
        if type(seen).__name__ in ("MlflowException", "RestException") and _AWAY_TEXT.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _first_line(error: BaseException) -> str:
    said = str(error).strip()
    return naming.without_password(said.splitlines()[0])[:200] if said else type(error).__name__
