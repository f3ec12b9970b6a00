"""The runbook's promises: its drill, performed as written; every exit code has its section; its commands exist."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import shlex
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
import typer
from rich.console import Console

from components import registry
from components.materialize_features.main import run as materialize
from components.promote_model import journal
from components.serve_model import hot_swap, ranking
from components.serve_model.champion import loaded
from components.serve_model.metrics import OUTCOMES
from components.watch_champion.main import Look, State, raise_for
from console import watching
from console.main import app
from goalrank import errors
from tests.components.promoted_workspace import COMMAND, PromotedWorkspace
from tests.components.tiny_snapshot import write_snapshot
from tests.components.untrained_models import NightInputs
from tests.documents import REPOSITORY, Block, shell_blocks, typed, write_commands

PAGE = REPOSITORY / "docs" / "runbook.md"
RUNBOOK = PAGE.read_text(encoding="utf-8")
LAST = "2026-01-04"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> PromotedWorkspace:
    """A workspace with features online and two promoted versions."""
    return with_two_champions(tmp_path_factory.mktemp("drill"))


def with_two_champions(folder: Path) -> PromotedWorkspace:
    workspace, inputs = folder / "workspace", folder / "inputs"
    artifact = write_snapshot(workspace / "snapshots", LAST, 2)
    materialize(str(artifact), str(workspace / "feast"), str(inputs / "training_set"), 2, str(folder / "run"))
    return PromotedWorkspace(workspace, NightInputs(inputs, made=True)).promoted(2)


@pytest.fixture
def environment(place: PromotedWorkspace, tmp_path: Path) -> dict[str, str]:
    """What the drill is typed in: this interpreter's goalrank, a free port, the workspace."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"GOALRANK_WORKSPACE": str(place.folder), "GOALRANK_PORT": str(port)}
    return write_commands(tmp_path / "bin") | known


HERE = "own: tests/components/test_runbook.py"
OURS = [block for block in shell_blocks(PAGE) if block.needs == HERE]


def drill() -> Block:
    (block,) = (block for block in OURS if "drill: over" in block.text)
    return block


def ready(port: str) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
        return json.loads(answer.read())


@contextmanager
def serving(environment: dict[str, str], port: str, *flags: str) -> Iterator[None]:
    """`goalrank serve`, up and answering on that port."""
    command = [*COMMAND, "serve", *flags]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                ready(port)
                break
            except OSError:
                assert server.poll() is None, server.stderr.read()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.5)
        yield
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("block", [block for block in OURS if block != drill()], ids=lambda block: block.place)
def test_commands_as_written(environment: dict[str, str], tmp_path: Path, block: Block) -> None:
    """Line by line, in a workspace of its own; a service is started, seen to answer, and ended."""
    place = with_two_champions(tmp_path)
    environment["GOALRANK_WORKSPACE"] = str(place.folder)
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[1] == "serve":
            with serving(environment, words[words.index("--port") + 1], *words[2:]):
                continue
        done = typed(line, environment, tmp_path, 120)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    went_back = "goalrank rollback --reason" in block.text
    assert place.aliases()[0][0] == ("1" if went_back else "2")


def test_the_roll_back_drill_as_written(place: PromotedWorkspace, environment: dict[str, str], tmp_path: Path) -> None:
    before = place.aliases()
    assert before == [("2", "1"), ("2", "1")]
    journalled = len(journal.read(place.journal_uri))
    with serving(environment, environment["GOALRANK_PORT"]):
        assert ready(environment["GOALRANK_PORT"])["model_version"] == "2"
        done = typed(drill().text, environment, tmp_path, 300)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(found)["model_version"] for found in re.findall(r'\{"status".*?\}', done.stdout)]
    assert answers == ["1", "2"], done.stdout
    assert place.aliases() == before
    moves = [event for event in journal.read(place.journal_uri)[journalled:] if event["event"] == "intent"]
    assert [(move["kind"], move["reason"]) for move in moves] == [
        ("rollback", "drill: nothing is wrong"),
        ("rollback", "drill: over"),
    ]
    shown = done.stdout.strip().splitlines()[-3:]
    assert sum("rolled back" in line for line in shown) == 2, done.stdout


def test_every_exit_code_has_its_section() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    found = {int(code) for code in re.findall(r"^### (\d+): ", RUNBOOK, re.MULTILINE)}
    assert found == codes


def sections() -> dict[str, str]:
    """Of the alerts, by their titles."""
    alerts = RUNBOOK.split("\n## Alerts\n", 1)[1].split("\n## ", 1)[0]
    parts = (part.partition("\n") for part in alerts.split("\n### ")[1:])
    return {title: body for title, _, body in parts}


def code_texts(*folders: str) -> str:
    """Everything the code may say, a text a line; what is filled in only when it is said is a NUL."""
    texts = []
    for file in (file for folder in folders for file in (REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_every_alert_of_the_watch_has_its_section() -> None:
    """What ends `goalrank watch --once` other than well is quoted where one looks for it."""
    alerts = []
    for state in get_args(State):
        seen = Look(state, "the reason")
        try:
            raise_for(seen)
        except errors.GoalRankError:
            said = Console(file=io.StringIO())
            watching._print(seen, said)
            alerts.append(said.file.getvalue().split("the reason")[0].strip())
    assert len(alerts) == 3
    quoted = " ".join(body for body in sections().values() if "`goalrank watch`" in body)
    assert all(f"`{word}" in quoted for word in alerts), alerts


def test_every_fallback_has_its_line() -> None:
    kinds = {value for name, value in vars(ranking).items() if name.isupper() and isinstance(value, str)}
    table = re.findall(r"^\| ([a-z_]+) \|", sections()["Fallbacks high"], re.MULTILINE)
    assert set(table) - {"kind"} == kinds - {ranking.RETRIEVER_POLICY} and len(kinds) > 4


def test_every_alert_says_what_to_look_at() -> None:
    assert len(sections()) > 10
    for title, body in sections().items():
        assert len(body.split()) > 30, title


def test_the_messages_it_quotes_are_those_of_the_code() -> None:
    """An alert is found by what it says; a text that was reworded would lead nowhere."""
    said, checked = code_texts("components", "console", "goalrank", "pipelines"), 0
    for title, body in sections().items():
        for quoted in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", body, flags=re.DOTALL)):
            if re.match(r"goalrank |GOALRANK_|fuser |kubectl ", quoted):
                continue  # typed, not said
            # Without what is filled in: ..., N, names.
            for piece in re.split(r"\S*\.\.\.\S*|\bN\b|\w+_\w+|\. |\bexpected ", " ".join(quoted.split())):
                if len(piece.split()) >= 3:
                    assert piece.strip(" :,") in said, f"{title}: {piece!r}"
                    checked += 1
    assert checked >= 8


def test_the_metrics_it_names_exist() -> None:
    said = code_texts("components/serve_model").split("\n")
    named = set(re.findall(r"\bgoalrank_([a-z_]+)", RUNBOOK))
    assert "fallbacks_total" in named
    for name in named:
        assert {name, name.removesuffix("_total"), f"goalrank_{name}"} & set(said), name


def test_the_labels_it_names_are_counted() -> None:
    said = set(code_texts("components/serve_model").split("\n"))
    labels = re.findall(r'\bgoalrank_[a-z_]+\{([a-z_]+)="([a-z_]+)"\}', RUNBOOK)
    assert len(labels) >= 4
    for label, value in labels:
        assert {label, value} <= said, f'{label}="{value}"'


@pytest.mark.parametrize(
    ("title", "metric"),
    [
        ("Overloaded", 'goalrank_requests_total{outcome="overloaded"}'),
        ("Overloaded", 'goalrank_requests_total{outcome="not_kept"}'),
        ("A champion that a server does not take", 'goalrank_swaps_total{outcome="refused"}'),
    ],
)
def test_what_a_server_counts_as_its_own_trouble_is_an_alert_with_something_to_type(title: str, metric: str) -> None:
    assert f"`{metric}`" in sections()[title]
    assert "Look at" in " ".join(sections()[title].split()) and "```sh\ngoalrank " in sections()[title]


def test_503_is_an_outcome_that_the_runbook_knows() -> None:
    """Whatever is neither an answer nor the client's fault: the next one to be counted must be written about too."""
    assert set(OUTCOMES) - {"answered", "invalid", "failed"} == {
        value for label, value in re.findall(r'requests_total\{(outcome)="([a-z_]+)"\}', RUNBOOK)
    }


def test_every_reason_to_refuse_a_version_has_its_line() -> None:
    """What a server's log says of a version it does not take, by whoever raises it."""
    rows = re.findall(r"^\| (`.*?) \|", sections()["A champion that a server does not take"], re.MULTILINE)
    quoted = [word for row in rows for word in re.findall("`(.*?)`", row)]
    refusing = [registry.fetch_model, registry.verify_weights, registry.require_feature_set, loaded, hot_swap.try_out]
    raised = [
        "".join(part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))
        for function in refusing
        for node in ast.walk(ast.parse(inspect.getsource(function)))
        if isinstance(node, ast.Raise)
    ]
    assert len(raised) >= len(refusing)
    for reason in raised:
        assert any(word in reason for word in quoted), reason


def test_the_commands_it_tells_you_to_type_exist() -> None:
    group = typer.main.get_command(app)
    told = re.findall(r"\bgoalrank ([a-z][a-z-]*)((?: --?[a-z-]+| [^`\n#|]*?)*)", RUNBOOK)
    assert len(told) > 30
    for name, _ in told:
        assert name in group.commands, f"goalrank {name}"
    for line in re.findall(r"goalrank [a-z][^`\n#|)]*", RUNBOOK):
        words = line.split()
        command = group.commands[words[1]]
        if hasattr(command, "commands"):
            command = command.commands[words[2]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for flag in re.findall(r"(?<=\s)--[a-z-]+", line):
            assert flag in known, f"{flag} in {line!r}"
