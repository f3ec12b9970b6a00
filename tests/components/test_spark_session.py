"""How Java is set up for a step's Spark: for short work or for long, and within the memory it gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.check_logs import main as check_logs
from components.extract_features import main as extract_features
from components.spark import LONG_BYTES, LONG_JAVA, SHORT_JAVA
from components.spark_memory import DEFAULT_MEMORY
from components.step import Step
from goalrank.errors import TryAgain
from tests.components.log_samples import random_logs

ASKED = """
import json, sys
from components.spark import spark_session
from components.step import Step
with Step("x", sys.argv[1]) as step, spark_session(step, reads=int(sys.argv[2])) as session:
    java = session._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments()
    print(json.dumps([*java, f"executors have {session.conf.get('spark.executor.memory')}"]))
"""
"""In a process of its own: one that has had a session keeps its Java."""


@pytest.mark.parametrize(
    ("reads", "java", "other", "executors"),
    [(0, SHORT_JAVA, LONG_JAVA, DEFAULT_MEMORY), (LONG_BYTES, LONG_JAVA, SHORT_JAVA, "3g")],
)
def test_java_fits_the_bytes_to_read_and_executors_have_memory_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: int, java: str, other: str, executors: str
) -> None:
    for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "GOALRANK_SPARK_EXECUTOR_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    if executors != DEFAULT_MEMORY:
        monkeypatch.setenv("GOALRANK_SPARK_EXECUTOR_MEMORY", executors)
    command = [sys.executable, "-c", ASKED, str(tmp_path), str(reads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    found = set(json.loads(done.stdout.splitlines()[-1]))
    assert found.issuperset(java.split())
    assert {f"-Xmx{DEFAULT_MEMORY}", f"executors have {executors}"} <= found
    assert not found & set(other.split())


def test_steps_tell_it_what_they_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = random_logs(seed=3, first="2026-01-01", days=2, requests=6)
    logs, snapshots, date = str(world.write(tmp_path / "logs")), str(tmp_path / "snapshots"), world.days[-1]
    told = []

    def session(step: Step, master: str, memory: str, reads: int) -> None:
        told.append(reads)
        raise TryAgain("as far as this test goes")

    for step in (check_logs, extract_features):
        monkeypatch.setattr(step, "spark_session", session)
    with pytest.raises(TryAgain, match="as far as"):
        check_logs.run(logs, snapshots, date, False, str(tmp_path / "docs"), str(tmp_path / "run"))
    with pytest.raises(TryAgain, match="as far as"):
        extract_features.run(logs, snapshots, date, False, 30, str(tmp_path / "snapshot"), str(tmp_path / "run"))
    every = sum(file.stat().st_size for file in (tmp_path / "logs").rglob("*.parquet"))
    assert told == [every, every] and every > 0


CACHED = """
import sys
from components.spark import spark_session
from components.step import Step
with Step("x", sys.argv[1]) as step, spark_session(step, memory="512m") as session:
    rows = session.range(0, 8_000, 1, 2).selectExpr("transform(sequence(1, 12500), n -> n + id) AS numbers").cache()
    print(rows.count(), rows.count())
"""
"""800 MB of rows of 100 kB, as a full rebuild's users are."""


def test_a_frame_larger_than_memory_is_cached_on_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CACHED, str(tmp_path)], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[:3000]
    assert done.stdout.split() == ["8000", "8000"]


KILLED = """
import sys
import psutil
from components.spark import spark_session
from components.step import Step
with Step("x", sys.argv[1]) as step, spark_session(step) as session:
    session.range(3).count()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    session.range(3).count()
"""


def test_a_step_whose_java_was_killed_says_so(tmp_path: Path) -> None:
    """As the kernel does where memory is short."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode != 0
    outcome = json.loads((tmp_path / "outcomes" / "x.json").read_text(encoding="utf-8"))
    assert (outcome["kind"], outcome["exit_code"]) == (TryAgain.kind, TryAgain.exit_code)
    assert outcome["reason"].startswith("Java has ended under Spark")
    assert f"more than {DEFAULT_MEMORY} with GOALRANK_SPARK_MEMORY" in outcome["reason"]
