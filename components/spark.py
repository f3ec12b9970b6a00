"""One Spark session for a step, set up so that it starts on any machine (a session costs 8-18 s: one a step).

Where Spark runs elsewhere, it would wait without end for what may never come: for a master that does not answer, or
for workers while it has none. Both are given up on, and the step may be tried again.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components import spark_on_kubernetes
from components.spark_memory import DEFAULT_MEMORY
from goalrank.errors import GoalRankError, TryAgain, UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from components.step import Step

DEFAULT_MASTER = "local[2]"

STANDALONE = "spark://"

_WITHOUT_ADDRESS = re.compile(r"local(?:\[(?:\*|\d+)(?:, *\d+)?\])?|local-cluster\[.+\]|yarn")

LOOPBACK = "127.0.0.1"

MASTER_SECONDS = 10.0
"""How long a master is given to take a connection."""

SHORT_JAVA = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"
"""Of a short job in one process, which would spend half its processor time in the optimising compiler: the first tier
alone halves a step (its own code cache, 48 MB, would fill up within a few jobs, and compiling would stop)."""

LONG_JAVA = "-XX:+UseParallelGC"
"""Of a long job, which the optimising compiler pays for, and which no pause of the collector disturbs."""

LONG_BYTES = 64_000_000
"""Parquet that a job reads from which on it is long: an extraction of 1.5 million impressions. At 1.7 million LONG_JAVA
takes two thirds of SHORT_JAVA's time, at 0.3 million a tenth more (docs/experiments.md)."""

WORKER_SECONDS = 300.0
"""How long work may wait with no executor to do it: a cluster may first have to start a machine."""


@contextmanager
def spark_session(
    step: Step, master: str = DEFAULT_MASTER, memory: str = DEFAULT_MEMORY, reads: int = 0
) -> Iterator[SparkSession]:
    """Start Spark for `step`, its cost booked as a tool's, and stop it on leaving.

    Args:
        master: local[N], spark://HOST:PORT (several, with commas, where masters stand by), k8s://https://HOST:PORT
            (spark_on_kubernetes.py), or any other of Spark's.
        memory: of the driver; of each executor too, where they are processes of their own and the environment has no
            GOALRANK_SPARK_EXECUTOR_MEMORY.
        reads: bytes of Parquet that the step will read, as far as it knows: with a local master, Java is set up for
            short work or for long.

    Raises:
        UsageError: the master is none (:func:`require_master`), or this is no pod of the Kubernetes named.
        TryAgain: Java is missing or has ended, the master does not answer, or work found no executor in WORKER_SECONDS.
    """
    require_master(master)
    with step.tool("pyspark"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        here = master.startswith("local") or _answers_here(master)
        if here:
            os.environ.setdefault("SPARK_LOCAL_IP", LOOPBACK)
        from pyspark.sql import SparkSession

        builder = (
            SparkSession.builder.appName(f"goalrank-{step.name}")
            .master(master)
            .config("spark.driver.memory", memory)
            .config("spark.executor.memory", os.environ.get("GOALRANK_SPARK_EXECUTOR_MEMORY") or memory)
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "4")
            # Java's serialiser keeps what it has written until it is reset, by default every hundred objects: of a
            # frame cached on disk these are blocks of 4 MB, more than the default memory holds.
            .config("spark.serializer.objectStreamReset", "1")
            .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
            .config("spark.sql.catalogImplementation", "in-memory")
            .config("spark.log.level", "ERROR")
        )
        if here:
            # Without both, Spark looks up the machine's own name, which a laptop or container often cannot resolve.
            builder = builder.config("spark.driver.host", LOOPBACK).config("spark.driver.bindAddress", LOOPBACK)
        if master.startswith("local"):
            builder = builder.config("spark.driver.extraJavaOptions", _java_options(reads))
        if master.startswith(spark_on_kubernetes.PREFIX):
            for name, value in spark_on_kubernetes.configuration(Path(tempfile.mkdtemp(prefix="spark-"))).items():
                builder = builder.config(name, value)
        try:
            session = builder.getOrCreate()
        except Exception as error:
            raise TryAgain(f"Spark did not start on {master}: {error}; is Java 17 or newer installed?") from error
    try:
        if master.startswith("local"):
            yield session
        else:
            with _not_waiting_without_end(session, master):
                yield session
    except GoalRankError:
        raise
    except Exception as error:
        if _stopped(session.sparkContext):  # the error itself may only say that nobody answers
            raise TryAgain(
                f"Java has ended under Spark ({type(error).__name__}), most often for want of memory; give it more "
                f"than {memory} with GOALRANK_SPARK_MEMORY and run the night again"
            ) from error
        raise
    finally:
        with suppress(Exception):  # of a Java that has ended; it may not take the place of what was found
            session.stop()


def _java_options(reads: int) -> str:
    if reads < LONG_BYTES:
        return SHORT_JAVA
    # Java does not start with two collectors.
    chosen = [os.environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")]
    return "" if "GC" in "".join(chosen) else LONG_JAVA


def require_master(master: str) -> None:
    """See that this may be a Spark master, by its looks; nobody is asked.

    Raises:
        UsageError: it is none: no host or port where one belongs, or a word that Spark does not know.
    """
    if master.startswith(STANDALONE):
        fits, expected = all(host and port for host, port in _places(master)), "spark://HOST:PORT"
    elif master.startswith(spark_on_kubernetes.PREFIX):
        host, _ = _place(re.sub(r"^https?://", "", master.removeprefix(spark_on_kubernetes.PREFIX)))
        fits, expected = bool(host), "k8s://https://HOST:PORT"
    else:
        fits = _WITHOUT_ADDRESS.fullmatch(master) is not None
        expected = "local[N], spark://HOST:PORT or k8s://https://HOST:PORT"
    if not fits:
        raise UsageError(f"Spark master {master!r} found, expected {expected}; mend GOALRANK_SPARK_MASTER")


def _places(master: str) -> list[tuple[str, int]]:
    """Host and port of each address of a standalone master; "" and 0 for what is missing."""
    return [_place(address) for address in master.removeprefix(STANDALONE).split(",")]


def _place(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        return parts.hostname or "", parts.port or 0
    except ValueError:
        return "", 0


def _answers_here(master: str) -> bool:
    """Does the standalone master run on this machine's loopback, so that its workers and driver do too?

    Raises:
        TryAgain: it does not answer.
    """
    if not master.startswith(STANDALONE):
        return False
    places, faults = _places(master), []
    for place in places:
        try:
            socket.create_connection(place, timeout=MASTER_SECONDS).close()
            return all(host in (LOOPBACK, "localhost") for host, _ in places)
        except OSError as error:
            faults.append(str(error))
    raise TryAgain(
        f"no Spark master answers at {master} ({'; '.join(faults)}); start it or mend GOALRANK_SPARK_MASTER, then run "
        "the same command again"
    )


@contextmanager
def _not_waiting_without_end(session: SparkSession, master: str) -> Iterator[None]:
    """Cancel jobs that have found no executor for WORKER_SECONDS; what fails for that, or because the master has ended
    the application, may be tried again. An executor that is lost while others live costs nothing but time."""
    context = session.sparkContext
    left, starved = threading.Event(), threading.Event()

    def watch() -> None:
        alone_since = time.monotonic()
        while not left.wait(1.0):
            try:
                if _executors(context) or not context.statusTracker().getActiveJobsIds():
                    alone_since = time.monotonic()
                elif time.monotonic() - alone_since > WORKER_SECONDS:
                    starved.set()
                    context.cancelAllJobs()
            except Exception:  # the driver is ending, by itself or because we leave
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        if starved.is_set():
            raise TryAgain(
                f"no worker of {master} has taken work for {WORKER_SECONDS:.0f} s; start workers with the cores and "
                "memory asked for (GOALRANK_SPARK_EXECUTOR_MEMORY), then run the same command again"
            ) from error
        if _stopped(context):
            raise TryAgain(
                f"Spark at {master} has ended this step's application ({type(error).__name__}); its master's log says "
                "why, run the same command again"
            ) from error
        raise
    finally:
        left.set()
        watcher.join()


def _executors(context: Any) -> int:
    """Executors there are now; the driver is counted among them by Spark, not by us."""
    return int(context._jsc.sc().getExecutorMemoryStatus().size()) - 1


def _stopped(context: Any) -> bool:
    """Has Spark ended the application under us?"""
    try:
        return bool(context._jsc.sc().isStopped())
    except Exception:
        return True
