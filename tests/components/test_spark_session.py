"""How Java is set up for a step's Spark: for short work or for long, and within the memory it gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.spark import LONG_BYTES, LONG_JAVA, SHORT_JAVA

ASKED = """
import json, sys
from components.spark import spark_session
from components.step import Step
with Step("x", sys.argv[1]) as step, spark_session(step, reads=int(sys.argv[2])) as session:
    java = session._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments()
    print(json.dumps(list(java)))
"""
"""In a process of its own: one that has had a session keeps its Java."""


@pytest.mark.parametrize(("reads", "java", "other"), [(0, SHORT_JAVA, LONG_JAVA), (LONG_BYTES, LONG_JAVA, SHORT_JAVA)])
def test_java_fits_the_bytes_to_read(tmp_path: Path, reads: int, java: str, other: str) -> None:
    command = [sys.executable, "-c", ASKED, str(tmp_path), str(reads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = set(json.loads(done.stdout.splitlines()[-1]))
    assert found.issuperset(java.split())
    assert not found & set(other.split())


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
    done = subprocess.run([sys.executable, "-c", CACHED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    assert done.stdout.split() == ["8000", "8000"]
