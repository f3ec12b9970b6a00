"""The cluster's stores when they are away or misnamed: each says so, names the setting, and may be tried again.

Nothing listens on port 9 of loopback; no server is needed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from components import feature_store
from components.materialize_features.definitions import load_definitions
from components.materialize_features.erase import erase_online
from components.registry import connect
from components.spark import spark_session
from components.step import Step
from console.settings import Settings
from goalrank.errors import TryAgain, UsageError
from goalrank_platform import root

PASSWORD = "s3cret#: {x}"
POSTGRES = "postgresql+psycopg://feast:hidden@127.0.0.1:9/feast"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A feature store of the cluster's kind whose Redis is away; its registry is on disk. Its address."""
    monkeypatch.setenv("GOALRANK_FEATURE_STORE", "cluster")
    monkeypatch.setenv("GOALRANK_FEAST_REGISTRY", f"sqlite:///{tmp_path}/registry.db")
    monkeypatch.setenv("GOALRANK_REDIS", "127.0.0.1:9")
    monkeypatch.delenv("GOALRANK_SPARK_MASTER", raising=False)
    return str(tmp_path / "feast")


@pytest.mark.parametrize(
    ("master", "error", "found"),
    [
        ("spark://127.0.0.1:9", TryAgain, "no Spark master answers at spark://127.0.0.1:9 (.*); start it or mend"),
        ("spark://127.0.0.1:9,127.0.0.1:7", TryAgain, "no Spark master answers"),
        ("spark://somewhere", UsageError, "'spark://somewhere' found, expected spark://HOST:PORT"),
        ("spark://host:port", UsageError, "'spark://host:port' found, expected spark://HOST:PORT"),
        ("k8s://", UsageError, "'k8s://' found, expected k8s://https://HOST:PORT; mend GOALRANK_SPARK_MASTER"),
        ("locall", UsageError, "'locall' found, expected local.N., spark://HOST:PORT or k8s://https://HOST:PORT"),
    ],
)
def test_spark_master_away(tmp_path: Path, master: str, error: type[Exception], found: str) -> None:
    with pytest.raises(error, match=found), Step("away", str(tmp_path)) as step, spark_session(step, master):
        pass


def test_redis_away(cluster: str, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    store = feature_store.create_store(cluster)
    store.apply([*load_definitions(root() / "feature_repo", tmp_path)[:2]])  # the entities: no Spark is needed for them
    with pytest.raises(TryAgain, match="the online store is away"), feature_store.reaching_store():
        store._get_provider().online_store._get_client(store.config.online_store).ping()


def test_registry_of_features_away(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("GOALRANK_FEAST_REGISTRY", POSTGRES)
    with pytest.raises(TryAgain, match="registry is away .*127.0.0.1.*mend GOALRANK_FEAST_REGISTRY") as raised:
        feature_store.create_store(cluster)
    assert "hidden" not in str(raised.value)
    with pytest.raises(TryAgain, match="does not open") as raised:
        erase_online(cluster, 1)
    assert "hidden" not in str(raised.value)


def test_tracking_server_away() -> None:
    with pytest.raises(TryAgain, match="MLflow at http://127.0.0.1:9 does not answer"):
        connect("http://127.0.0.1:9")


def test_any_password_is_taken_as_it_is(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALRANK_REDIS", f"redis:6379,password={PASSWORD}")
    online = feature_store.read_config(cluster)["online_store"]["connection_string"]
    assert online.startswith(f"redis:6379,password={PASSWORD},")


@pytest.mark.parametrize("name", ["GOALRANK_REDIS", "GOALRANK_FEAST_REGISTRY"])
def test_a_missing_address_is_named(cluster: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=f"feature_store.cluster.yaml needs the environment variable {name}; set it"):
        feature_store.read_config(cluster)
    with pytest.raises(UsageError, match=f"GOALRANK_FEATURE_STORE is cluster, but {name} found empty"):
        Settings.load().require_stores()


def test_settings_show_no_password(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALRANK_REDIS", f"redis:6379,password={PASSWORD}")
    settings = Settings.load()
    settings.require_stores()
    assert PASSWORD not in repr(settings) and PASSWORD not in settings.model_dump_json()
