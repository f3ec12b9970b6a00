"""The stores of the cluster's column, processes of their own on loopback: started, waited for, ended in any case.

They read what k8s/ gives a cluster's (databases.sql, redis.conf, mlflow.env), so that this is tried here too.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = "127.0.0.1"
STORES = Path(__file__).resolve().parents[2] / "k8s" / "base" / "stores"
PATIENCE = 120
"""Seconds within which each server must answer."""


def missing() -> list[str]:
    """What this machine lacks, each with what to install."""
    lacking = []
    if _postgres_programs() is None:
        lacking.append("PostgreSQL's server (Debian: apt-get install postgresql)")
    if shutil.which("redis-server") is None:
        lacking.append("Redis' server (Debian: apt-get install redis-server)")
    for module in ("moto", "psycopg", "redis", "boto3"):
        try:
            __import__(module)
        except ImportError:
            lacking.append(f"the package {module} (make setup)")
    return lacking


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: list[str],
    log: Path,
    answers: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server from when it answers to when we leave; its whole process group is gone afterwards."""
    with open(log, "ab") as said:
        server = subprocess.Popen(
            command,
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            **options,
        )
    try:
        waited_for(f"{command[0]} ({log})", answers, lambda: server.poll() is None)
        yield server
    finally:
        _end(server)


def waited_for(
    what: str, answers: Callable[[], bool], alive: Callable[[], bool] = lambda: True, seconds: float = PATIENCE
) -> None:
    """Return once `answers` says yes."""
    deadline = time.monotonic() + seconds
    while not answers():
        assert alive(), f"{what} ended before it answered"
        assert time.monotonic() < deadline, f"{what} did not answer within {seconds} s"
        time.sleep(0.1)


def _end(server: subprocess.Popen[bytes]) -> None:
    for sign, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(server.pid, sign)
            server.wait(seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    server.wait(1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HERE, port)) == 0


def fetched(url: str) -> bytes | None:
    """The body of a page, None where there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except (OSError, urllib.error.URLError):
        return None


# ----------------------------------------------------------------------------------------------------------- databases


@dataclass(frozen=True)
class Postgres:
    """Addresses of the databases that k8s/base/stores/databases.sql makes."""

    mlflow: str
    feast: str


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """PostgreSQL with passwords, run by the user `postgres` where we are root, which it refuses to be run by."""
    programs = _postgres_programs()
    assert programs is not None
    folder.mkdir()
    options: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    port, passwords = free_port(), {name: secrets.token_hex(12) for name in ("superuser", "mlflow", "feast")}
    (folder / "password").write_text(passwords["superuser"])
    (folder / "password").chmod(0o644)
    initdb = ["-D", "data", "-U", "postgres", "--auth=scram-sha-256", "--pwfile=password", "--no-sync", "-E", "UTF8"]
    _done([str(programs / "initdb"), *initdb], **options)

    command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-h", HERE, "-k", str(folder)]
    admin = os.environ | {"PGPASSWORD": passwords["superuser"]}
    ready = [str(programs / "pg_isready"), "-q", "-h", HERE, "-p", str(port)]
    with running(command, folder / "log", lambda: subprocess.run(ready).returncode == 0, **options):
        psql = [
            str(programs / "psql"),
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            HERE,
            "-p",
            str(port),
            "-U",
            "postgres",
            "-f",
            "-",
        ]
        made = {"MLFLOW_PASSWORD": passwords["mlflow"], "FEAST_PASSWORD": passwords["feast"]}
        _done(psql, env=admin | made, input=(STORES / "databases.sql").read_bytes())
        yield Postgres(
            mlflow=f"postgresql://mlflow:{passwords['mlflow']}@{HERE}:{port}/mlflow",
            feast=f"postgresql+psycopg://feast:{passwords['feast']}@{HERE}:{port}/feast",
        )


def _postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them off the path."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(versions, key=lambda path: int(path.parent.name), default=None)


def _done(command: list[str], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, **options)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Redis with a password; its address as Feast is told it."""
    folder.mkdir()
    port, password = free_port(), secrets.token_hex(12)
    (folder / "redis.conf").write_text((STORES / "redis.conf").read_text().replace("dir /data", f"dir {folder}"))
    command = ["redis-server", str(folder / "redis.conf"), "--bind", HERE, "--port", str(port)]
    with running([*command, "--requirepass", password], folder / "log", lambda: _listens(port)):
        yield f"{HERE}:{port},password={password}"


# ------------------------------------------------------------------------------------------------------- models, files


@dataclass(frozen=True)
class Bucket:
    """An S3 server's address and the keys to it."""

    endpoint: str
    name: str
    keys: Mapping[str, str]

    def objects(self) -> list[str]:
        """Keys of what is in the bucket."""
        listed = self.client().list_objects_v2(Bucket=self.name)
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def client(self) -> Any:
        """boto3's."""
        import boto3

        keys = {name.lower(): value for name, value in self.keys.items()}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)


@contextmanager
def s3(folder: Path, bucket: str) -> Iterator[Bucket]:
    """moto's server with one empty bucket."""
    folder.mkdir()
    port = free_port()
    keys = {"AWS_ACCESS_KEY_ID": "night", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(12)}
    command = [sys.executable, "-m", "moto.server", "-H", HERE, "-p", str(port)]
    with running(command, folder / "log", lambda: _listens(port)):
        made = Bucket(f"http://{HERE}:{port}", bucket, keys)
        made.client().create_bucket(Bucket=bucket)
        yield made


def mlflow_settings() -> dict[str, str]:
    """What k8s/base/stores/mlflow.env says."""
    lines = [line for line in (STORES / "mlflow.env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def mlflow_bucket() -> str:
    """Name of the bucket it says MLflow's files go to."""
    return mlflow_settings()["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://")


@contextmanager
def mlflow(folder: Path, database: str, bucket: Bucket) -> Iterator[str]:
    """MLflow's server on that database and bucket, configured as the cluster's; it alone holds S3's keys."""
    folder.mkdir()
    port = free_port()
    environment = mlflow_settings() | bucket.keys
    environment |= {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_S3_ENDPOINT_URL": bucket.endpoint}
    environment |= {"MLFLOW_SERVER_ALLOWED_HOSTS": f"{HERE}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a scheduler and workers that nothing here uses
    command = [sys.executable, "-m", "mlflow", "server", "--host", HERE, "--port", str(port), "--workers", "1"]
    url = f"http://{HERE}:{port}"
    with running(command, folder / "log", lambda: fetched(f"{url}/health") is not None, environment, cwd=folder):
        yield url


# --------------------------------------------------------------------------------------------------------------- Spark


@dataclass(frozen=True)
class Spark:
    """A standalone cluster: the master's address, its page, and the workers' processes."""

    master: str
    page: str
    workers: tuple[subprocess.Popen[bytes], ...]

    def alive(self) -> int:
        """How many workers the master counts on."""
        return sum(worker["state"] == "ALIVE" for worker in self._state()["workers"])

    def runs(self, application: str) -> bool:
        """Is an application of that name under way?"""
        return any(running["name"] == application for running in self._state()["activeapps"])

    def _state(self) -> dict[str, Any]:
        page = fetched(self.page)
        return json.loads(page) if page else {"workers": [], "activeapps": []}


@contextmanager
def spark(folder: Path, workers: int) -> Iterator[Spark]:
    """A master and workers of one core each, every one a JVM started through spark-class."""
    import pyspark

    folder.mkdir()
    home = Path(pyspark.__file__).parent
    environment = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": HERE, "SPARK_DAEMON_MEMORY": "256m"}
    port, page = free_port(), free_port()
    command = [str(home / "bin" / "spark-class"), "org.apache.spark.deploy.master.Master"]
    command += ["--host", HERE, "--port", str(port), "--webui-port", str(page)]
    cluster = Spark(f"spark://{HERE}:{port}", f"http://{HERE}:{page}/json/", ())
    with ExitStack() as stack:
        stack.enter_context(
            running(command, folder / "master.log", lambda: fetched(cluster.page) is not None, environment)
        )
        started = tuple(
            stack.enter_context(_worker(folder / f"worker-{n}", home, cluster, environment)) for n in range(workers)
        )
        waited_for("Spark's workers", lambda: cluster.alive() == workers)
        yield replace(cluster, workers=started)


def _worker(
    work: Path, home: Path, cluster: Spark, environment: Mapping[str, str]
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [str(home / "bin" / "spark-class"), "org.apache.spark.deploy.worker.Worker", cluster.master]
    command += ["--host", HERE, "--webui-port", "0", "--cores", "1", "--memory", "1g", "--work-dir", str(work)]
    return running(command, work.with_suffix(".log"), lambda: True, environment)
