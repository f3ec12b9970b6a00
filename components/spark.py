"""One Spark session for a step, set up so that it starts on any machine (a session costs 8-18 s: one a step)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from goalrank.errors import TryAgain

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from components.step import Step


@contextmanager
def spark_session(step: Step, master: str = "local[2]", memory: str = "1g") -> Iterator[SparkSession]:
    """Start Spark for `step`, its cost booked as a tool's, and stop it on leaving.

    Raises:
        TryAgain: Java is missing or the master does not answer.
    """
    with step.tool("pyspark"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        from pyspark.sql import SparkSession

        builder = (
            SparkSession.builder.appName(f"goalrank-{step.name}")
            .master(master)
            .config("spark.driver.memory", memory)
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "4")
            .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
            .config("spark.sql.catalogImplementation", "in-memory")
            .config("spark.log.level", "ERROR")
        )
        if master.startswith("local"):
            # Without both, Spark looks up the machine's own name, which a laptop or container often cannot resolve.
            builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
            # Short jobs spend half their processor time in the optimising compiler: the first tier alone halves a step
            # (its own code cache, 48 MB, would fill up within a few jobs, and compiling would stop).
            java = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"
            builder = builder.config("spark.driver.extraJavaOptions", java)
        try:
            session = builder.getOrCreate()
        except Exception as error:
            raise TryAgain(f"Spark did not start on {master}: {error}; is Java 17 or newer installed?") from error
    try:
        yield session
    finally:
        session.stop()
