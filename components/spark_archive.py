"""An archive of the Java classes that Spark's steps load: `python -m components.spark_archive` makes it, once.

A short job's Java spends a fifth of its processor time and more on finding, reading and verifying Spark's classes;
from an archive (class data sharing, JEP 350) it maps them into memory. `make setup` makes one by a small extraction of
its own and leaves it in the environment. Whether it fits, Java sees for itself each time: another Java, another class
path, or a changed jar is done without it (benchmarks/spark_archive.py measures the difference).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from goalrank.errors import GoalRankError, TryAgain

NAME = "spark.jsa"

QUIET = "-Xlog:cds=off -Xlog:cds+dynamic=off"
"""An archive that does not fit is nothing that a night's log should speak of."""

EXIT_SECONDS = 300.0
"""How long Java may take to write the archive, as it ends."""


def place() -> Path:
    """Where this environment's archive lies, if it has one."""
    return Path(sys.prefix) / "share" / "goalrank" / NAME


def java_options(archive: Path) -> str:
    """For spark.driver.extraJavaOptions: use the archive if there is one; "" without."""
    # Spark splits the options as a shell would; a path that needs quotes is not worth them.
    if not archive.is_file() or set(str(archive)) & set(" \t\"'\\"):
        return ""
    return f"-XX:SharedArchiveFile={archive} {QUIET}"


def make(archive: Path) -> None:
    """Check and extract two days of a small world, and keep the classes that took.

    In a process that has had no Spark session yet.

    Raises:
        TryAgain: Java did not start, or left no archive.
    """
    from components.check_logs import main as check_logs
    from components.extract_features import main as extract_features
    from goalrank import simulator

    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)  # Java cannot use one and write one
    aside = archive.with_name(f".{os.getpid()}.{archive.name}")
    # Taken by any Java, before what Spark is told: its own command line is put together without a shell's quotes.
    before = os.environ.get("JAVA_TOOL_OPTIONS", "")
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before} -XX:ArchiveClassesAtExit={aside} {QUIET}"
    world = simulator.WorldConfig(users=40, items=100, requests_per_day=60)
    try:
        with tempfile.TemporaryDirectory(prefix="goalrank-archive-") as folder:
            logs, snapshots, run = (str(Path(folder) / name) for name in ("logs", "snapshots", "run"))
            date = simulator.write_days(world, 0, 2, logs)[-1]
            check_logs.run(logs, snapshots, date, False, str(Path(folder) / "docs"), run)
            extract_features.run(logs, snapshots, date, False, 30, str(Path(folder) / "snapshot"), run)
            _end_java()
        if not aside.is_file():
            raise TryAgain(f"Java ended without {aside}; it must be OpenJDK 17 or newer")
        aside.replace(archive)
    finally:
        aside.unlink(missing_ok=True)


def _end_java() -> None:
    """End the Java that a session leaves behind, and wait until it has written what it writes at its end."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    assert gateway is not None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(EXIT_SECONDS)


def main() -> int:
    """Make this environment's archive; its exit code."""
    try:
        make(place())
    except GoalRankError as error:
        print(f"goalrank: no archive of Spark's classes, so it starts a little slower: {error}", file=sys.stderr)
        return error.exit_code
    size = place().stat().st_size / 1e6
    print(f"goalrank: {place()}, {size:.0f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
