"""MLflow, Feast, Spark's master, Kubeflow Pipelines, Prometheus: those that the settings name, do they answer?"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

from console.doctor import network
from console.doctor.findings import OK, PROBLEM, WARNING, Check, Finding
from console.settings import Settings
from console.workspace import ENDED_WELL, Workspace
from goalrank import naming

GROUP = "stores"
TABLES_OF_MLFLOW = {"experiments", "registered_models", "model_versions", "registered_model_aliases"}
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def mlflow(settings: Settings) -> list[Finding]:
    """The tracking server or its database."""
    uri = settings.tracking_uri
    shown = naming.without_password(uri)
    if uri.startswith("sqlite:///"):
        path = Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))
        mend = "restore it from a backup: it holds the registry (docs/runbook.md)"
        return [_database("MLflow", path, settings, TABLES_OF_MLFLOW, mend)]
    if uri.startswith(("http://", "https://")):
        return [_server("MLflow", f"{uri.rstrip('/')}/health", shown, "start it, or mend GOALRANK_TRACKING_URI")]
    return [_listener("MLflow's database", uri, shown, "start it, or mend GOALRANK_TRACKING_URI")]


def feast(settings: Settings) -> list[Finding]:
    """Online store and registry, and whether the last materialisation is whole."""
    if settings.feature_store == "cluster":
        registry = settings.feast_registry.get_secret_value()
        mend = "start it, or mend GOALRANK_FEAST_REGISTRY"
        found = [_listener("Feast's registry", registry, naming.without_password(registry), mend)]
        found += [_redis(settings.redis.get_secret_value())]
    else:
        place = Path(settings.feast_uri)
        mend = "`goalrank nightly --full-rebuild` writes it anew"
        found = [_database("online store", place / "online.db", settings, set(), mend)]
    return [*found, *_materialised(Path(settings.feast_uri))]


def spark(settings: Settings) -> list[Finding]:
    """A standalone master; one of this process needs nobody."""
    if not settings.spark_master.startswith("spark://"):
        return []
    return [_listener("Spark", settings.spark_master, settings.spark_master, "start it, or mend GOALRANK_SPARK_MASTER")]


def kubeflow(settings: Settings) -> list[Finding]:
    """Kubeflow Pipelines, where the settings name one."""
    if not settings.kfp_endpoint:
        return []
    address = f"{settings.kfp_endpoint.rstrip('/')}/apis/v2beta1/healthz"
    mend = "is it up, is the port forwarded? else mend GOALRANK_KFP_ENDPOINT"
    return [_server("Kubeflow Pipelines", address, naming.without_password(settings.kfp_endpoint), mend)]


def prometheus(settings: Settings) -> list[Finding]:
    """By whose figures a canary is judged."""
    if not settings.prometheus:
        return []
    address = f"{settings.prometheus.rstrip('/')}/-/ready"
    shown = naming.without_password(settings.prometheus)
    return [_server("Prometheus", address, shown, "start it, or mend GOALRANK_PROMETHEUS")]


# ------------------------------------------------------------------------------------------------------------- private


def _database(name: str, path: Path, settings: Settings, tables: set[str], mend: str) -> Finding:
    """An SQLite file, opened read-only and asked for its tables."""
    if not path.exists():
        if any(night.verdict in ENDED_WELL for night in Workspace(settings.workspace).nights()):
            return Finding(GROUP, name, PROBLEM, f"{path} is gone", mend)
        return Finding(GROUP, name, OK, "none yet; the first night makes it")
    try:
        address = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(address, timeout=network.SECONDS, uri=True)) as database:
            found = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError as error:
        return Finding(GROUP, name, WARNING, f"{path}: {error}", "is a process stuck in it? else look again")
    except sqlite3.DatabaseError as error:
        return Finding(GROUP, name, PROBLEM, f"{path}: {error}", mend)
    missing = tables - found
    if missing:
        return Finding(GROUP, name, PROBLEM, f"{path} lacks the tables {', '.join(sorted(missing))}", mend)
    return Finding(GROUP, name, OK, str(path))


def _server(name: str, address: str, shown: str, mend: str) -> Finding:
    said = network.answers(address)
    if isinstance(said, str):
        return Finding(GROUP, name, PROBLEM, f"{shown} does not answer ({said})", mend)
    if said[0] >= 500:
        return Finding(GROUP, name, PROBLEM, f"{shown} answers {said[0]}", mend)
    if said[0] in (401, 403):
        return Finding(GROUP, name, OK, f"{shown} answers, and asks who we are ({said[0]})")
    if said[0] >= 400:
        return Finding(GROUP, name, WARNING, f"{shown} answers {said[0]}", f"is this its address? {mend}")
    return Finding(GROUP, name, OK, f"{shown} answers")


def _listener(name: str, uri: str, shown: str, mend: str) -> Finding:
    scheme = uri.partition(":")[0].partition("+")[0]
    try:
        host, port = network.place_of(uri, PORTS.get(scheme, 7077))
    except ValueError as error:
        return Finding(GROUP, name, PROBLEM, f"{shown}: {error}", mend)
    reason = network.connects(host, port)
    if reason:
        return Finding(GROUP, name, PROBLEM, f"nothing listens at {host}:{port} ({reason})", mend)
    return Finding(GROUP, name, OK, f"{host}:{port} listens")


def _redis(connection: str) -> Finding:
    name, mend = "online store", "start Redis, or mend GOALRANK_REDIS"
    first, *options = connection.split(",")
    try:
        host, port = network.place_of(first, 6379)
    except ValueError as error:
        return Finding(GROUP, name, PROBLEM, f"GOALRANK_REDIS: {error}", mend)
    encrypted = any(option.replace(" ", "").lower() == "ssl=true" for option in options)
    reason = network.connects(host, port) if encrypted else network.redis_answers(host, port)
    if reason:
        return Finding(GROUP, name, PROBLEM, f"no Redis at {host}:{port} ({reason})", mend)
    return Finding(GROUP, name, OK, f"Redis at {host}:{port} answers")


def _materialised(place: Path) -> list[Finding]:
    """FEAST/online.json: what is online."""
    try:
        record = json.loads((place / "online.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        mend = "`goalrank nightly` writes it anew"
        return [Finding(GROUP, "features online", WARNING, f"online.json cannot be read ({error})", mend)]
    if "folder" in record:
        return [Finding(GROUP, "features online", OK, f"of snapshot {record.get('snapshot_id', '?')}")]
    mend = "the night under way, or the next one, finishes it"
    return [Finding(GROUP, "features online", WARNING, "a materialisation is under way or was cut short", mend)]


CHECKS = tuple(Check(GROUP, ask.__name__, ask) for ask in (mlflow, feast, spark, kubeflow, prometheus))
