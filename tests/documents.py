"""The documents' shell blocks: where they are, what they need, and how a person would type them.

A block of ```sh or ```console is a promise that its commands work. One that no test can run says why, in a comment on
the line before it: `<!-- needs: cluster -->` (docs/contributing.md lists the words).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))

NEEDS = {
    "cluster": "Kubernetes, Kubeflow, or an image registry",
    "root": "root, podman, or servers of the system",
    "data": "a data set that its licence keeps out of the repository",
    "setup": "makes or changes the environment that the tests themselves run in",
    "long": "more minutes than a test may take",
    "fault": "a fault that must be there first: a test of its own makes it, or none can",
    "own": "a place of its own: the test that is named types the block as it stands",
}
"""What a block may need that a test of the documents does not have."""

_FENCE = re.compile(
    r"^(?:<!-- needs: (?P<needs>.*?) -->\n)?```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)

SHELL = ("sh", "console")

COMMAND = [sys.executable, "-c", "from goalrank_platform import main; main()"]

_CURL = f"""#!{sys.executable}
import sys, urllib.request
from urllib.parse import urlparse
data = next((sys.argv[place + 1] for place, word in enumerate(sys.argv) if word in ("-d", "--data")), None)
address = next(word for word in sys.argv[1:] if urlparse(word).scheme in ("http", "https"))
headers = {{"content-type": "application/json"}} if data else {{}}
request = urllib.request.Request(address, data=data.encode() if data else None, headers=headers)
sys.stdout.write(urllib.request.urlopen(request).read().decode())
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    needs: str | None
    text: str

    @property
    def place(self) -> str:
        """page:line, as an editor opens it."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """Fenced blocks of a page in those languages, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        if match["language"] in languages:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match["language"], match["needs"], match["text"]))
    return found


def shell_blocks(page: Path) -> list[Block]:
    """The blocks of a page that are typed."""
    return blocks(page, *SHELL)


def write_commands(folder: Path) -> dict[str, str]:
    """Put this interpreter's `goalrank`, `python3` and `curl` into a folder; returns an environment that finds them."""
    folder.mkdir()
    (folder / "goalrank").write_text(f"#!/bin/sh\nexec {COMMAND[0]} {COMMAND[1]} '{COMMAND[2]}' \"$@\"\n")
    (folder / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    if shutil.which("curl") is None:
        (folder / "curl").write_text(_CURL)
    for file in folder.iterdir():
        file.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}


def typed(
    text: str, environment: dict[str, str], folder: Path, seconds: float = 1800
) -> subprocess.CompletedProcess[str]:
    """A block as somebody types it who stops at the first command that fails."""
    command = ["bash", "-euo", "pipefail", "-c", text]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            said, told = shell.communicate(timeout=seconds)
        except BaseException:
            os.killpg(shell.pid, signal.SIGTERM)  # a night that nobody waits for would go on
            raise
    return subprocess.CompletedProcess(command, shell.returncode, said, told)


def typed_in_turn(
    those: list[Block], environment: dict[str, str], folder: Path, seconds: float = 3600
) -> dict[str, str]:
    """Blocks typed one after the other in one terminal, so that what one exports the next has; what each printed.

    Raises:
        AssertionError: a command failed; it says which block, and what was printed last.
    """
    mark = "==== the block of "
    text = "\n".join(f"printf '{mark}%s\\n' '{block.place}'\n{block.text}" for block in those)
    done = typed(text, environment, folder, seconds)
    said = dict(part.split("\n", 1) for part in done.stdout.split(mark)[1:])
    last = list(said)[-1] if said else "none"
    assert done.returncode == 0, f"{last} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return said
