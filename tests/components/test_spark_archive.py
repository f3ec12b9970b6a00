"""The archive of Spark's classes that `make setup` leaves: Java maps it, and does without where it does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from components import spark_archive
from goalrank.errors import TryAgain
from tests import lacking
from tests.documents import REPOSITORY

SESSION = """
import sys
sys.prefix = sys.argv[2]
from components.spark import spark_session
from components.step import Step
with Step("x", sys.argv[1]) as step, spark_session(step) as session:
    print(session.range(3).count())
"""


def session(folder: Path, prefix: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """A session of an environment at `prefix`, and what its Java says of each class that it loaded."""
    loaded = folder / "loaded"
    environment = os.environ | {"JAVA_TOOL_OPTIONS": f"-Xlog:class+load:file={loaded}"}
    command = [sys.executable, "-c", SESSION, str(folder / "run"), str(prefix)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    return done, loaded.read_text(encoding="utf-8", errors="replace")


def test_sparks_classes_come_from_it(tmp_path: Path) -> None:
    if not spark_archive.place().is_file():
        lacking.skip(f"no {spark_archive.place()}: make setup leaves one")
    done, loaded = session(tmp_path, Path(sys.prefix))
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    mapped = [line for line in loaded.splitlines() if " org.apache.spark." in line and line.endswith("file (top)")]
    read = [line for line in loaded.splitlines() if " org.apache.spark." in line and " source: file:" in line]
    assert len(mapped) > 10 * len(read) and len(mapped) > 1000, f"{len(mapped)} from the archive, {len(read)} from jars"


def test_one_that_does_not_fit_is_done_without(tmp_path: Path) -> None:
    archive = tmp_path / "share" / "goalrank" / spark_archive.NAME
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"of another Java" * 1000)
    done, loaded = session(tmp_path, tmp_path)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert "shared objects file (top)" not in loaded
    assert "[cds" not in done.stderr and str(archive) not in done.stderr


def test_java_is_told_of_one_that_is_there(tmp_path: Path) -> None:
    archive, spaced = tmp_path / "spark.jsa", tmp_path / "a folder.jsa"
    assert spark_archive.java_options(archive) == ""
    for file in (archive, spaced):
        file.touch()
    assert spark_archive.java_options(archive).split()[0] == f"-XX:SharedArchiveFile={archive}"
    assert spark_archive.java_options(spaced) == "", "Spark would take it for two options"


def test_without_java_none_is_made_and_that_is_said(tmp_path: Path) -> None:
    """As `make setup` calls it; nothing half-made is left."""
    archive = tmp_path / "share" / "goalrank" / spark_archive.NAME
    archive.parent.mkdir(parents=True)
    archive.touch()
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.prefix = {str(tmp_path)!r}\nfrom components.spark_archive import main\nsys.exit(main())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    environment |= {"PATH": "/nowhere", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == TryAgain.exit_code, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("goalrank: no archive of Spark's classes, so it starts a little slower: Spark did not start")
    assert list(archive.parent.iterdir()) == []
