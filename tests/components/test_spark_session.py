"""How Java is set up for a step's Spark: for short work, or for long."""

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
