"""Every command teaches: a sentence, examples that parse, flags whole at any width. The surface is frozen."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from console import experiments
from console.command import stopped
from console.help import MistypedError, show, split
from console.importing import run_import
from console.main import app
from tests.command_tree import GOLDEN, RENEW, examples, parse, surface, walk

TREE = list(walk())
LEAVES = [(path, command) for path, command in TREE if not hasattr(command, "commands")]
NO_RESULT = {("serve",), ("ui",)}
"""They answer others until they are interrupted: there is nothing to print at the end."""
LONGEST_SENTENCE = 75
COMMAND = [sys.executable, "-m", "goalrank_platform"]


def name(given: Any) -> str:
    return "-".join(("goalrank", *given)) if isinstance(given, tuple) else ""


def plain(**more: str) -> dict[str, str]:
    """An environment in which nothing asks for colour."""
    asking = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR", "TTY_COMPATIBLE")
    return {key: value for key, value in os.environ.items() if key not in asking} | more


def shown(command: Any, path: tuple[str, ...], width: int) -> list[str]:
    console = Console(width=width, highlight=False, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
    context = command.make_context(" ".join(("goalrank", *path)), [], resilient_parsing=True)
    show(command, context, console)
    console.file.close()
    return console.export_text().splitlines()


def test_the_surface_changes_on_purpose_only() -> None:
    found, expected = surface(), GOLDEN.read_text(encoding="utf-8")
    changes = "\n".join(difflib.unified_diff(expected.splitlines(), found.splitlines(), lineterm="", n=1))
    assert found == expected, (
        f"the command line is another than {GOLDEN.name} says:\n{changes}\n"
        f"scripts and schedulers call it, so think twice; meant so: `{RENEW}`, and commit what it writes"
    )


@pytest.mark.parametrize(("path", "command"), TREE, ids=name)
def test_a_short_sentence_comes_first(path: tuple[str, ...], command: Any) -> None:
    paragraphs, _ = split(command.help)
    assert paragraphs[0].endswith(".") and len(paragraphs[0]) <= LONGEST_SENTENCE + 10 * (path == ()), paragraphs[0]


@pytest.mark.parametrize(("path", "command"), TREE, ids=name)
def test_examples_parse_and_lead_here(path: tuple[str, ...], command: Any) -> None:
    found = examples(command)
    assert found, "no example"
    for example in found:
        assert example.why, example.line
        if example.line.endswith("--help"):
            continue
        leads_to = parse(example.line)
        assert command is not leads_to or path
        assert example.line.split()[: 1 + len(path)] == ["goalrank", *path], example.line


def test_an_example_that_is_wrong_would_be_seen() -> None:
    for line in (
        "goalrank nightyl",
        "goalrank nightly --presett base",
        "goalrank ab-test --days many",
        "goalrank day skip",
    ):
        with pytest.raises(MistypedError):
            parse(line)


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=name)
def test_every_option_says_what_it_takes_and_does(path: tuple[str, ...], command: Any) -> None:
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert getattr(parameter, "is_flag", False) or parameter.metavar, parameter.name


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=name)
def test_json_wherever_there_is_a_result(path: tuple[str, ...], command: Any) -> None:
    assert ("--json" in {opt for one in command.params for opt in one.opts}) is (path not in NO_RESULT)


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize(("path", "command"), TREE, ids=name)
def test_help_fits_and_cuts_nothing(path: tuple[str, ...], command: Any, width: int) -> None:
    lines = shown(command, path, width)
    text = "\n".join(lines)
    may_be_long = {f"  {example.line}" for example in examples(command)}
    assert all(len(line) <= width or line in may_be_long for line in lines)
    assert all(line == line.rstrip() for line in lines), "blanks at the end of a line are copied too"
    for parameter in command.params:
        for opt in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
            assert re.search(rf"^  (-\w, )?{re.escape(opt)}\b", text, re.MULTILINE), opt
        value = getattr(parameter.default, "value", parameter.default)
        stated = [] if value is None or isinstance(value, bool) else [f"[default: {value}]"]
        stated += re.findall(r"\[default: [^]]+\]", parameter.help or "")
        assert all(default in " ".join(text.split()) for default in stated)
    if hasattr(command, "commands"):
        assert set(command.commands) == set(command.list_commands(None)), "a command that no help shows"


def test_every_command_has_a_title_of_its_own() -> None:
    titles = {command.rich_help_panel for path, command in TREE if len(path) == 1}
    assert None not in titles and len(titles) >= 6


def test_help_says_what_the_exit_codes_mean() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "75 try again" in " ".join(result.stdout.split())


@pytest.mark.parametrize("words", [["nightly", "--help"], ["history"], ["nightly", "--date", "tomorrow"], ["nihgtly"]])
def test_off_a_terminal_nothing_but_text(tmp_path: Path, words: list[str]) -> None:
    place = {"GOALRANK_WORKSPACE": str(tmp_path / "w")}
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, env=plain(**place), timeout=60)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.stdout + done.stderr)


def test_progress_bars_leave_nothing_off_a_terminal(tmp_path: Path) -> None:
    told, results = Console(file=StringIO(), width=80), Console(file=StringIO(), width=80)
    orders = {"retriever": {"ndcg": 0.5}}
    summary = {
        "counts": dict.fromkeys(("ratings", "ratings_read", "users", "items", "requests"), 7),
        "splits": {"train": 5},
        "days": {"count": 30, "first": "2000-01-01", "last": "2000-01-30"},
        "sanity_on_test": orders,
    }

    def imported(progress: Callable[[int, int, str], None]) -> dict[str, Any]:
        for done in range(1000):
            progress(done, 1000, "candidates")
        return summary

    run_import(imported, tmp_path / "LOGS", told, results, False)
    with experiments._bar(told) as bar:
        bar.advance(bar.add_task("day 1 of 2", total=2))
    said = told.file.getvalue() + results.file.getvalue()  # type: ignore[attr-defined]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said) and "candidates" not in said
    assert "nightly --logs" in told.file.getvalue(), "what to type next"  # type: ignore[attr-defined]


def test_no_color_is_honoured(tmp_path: Path) -> None:
    place = {"GOALRANK_WORKSPACE": str(tmp_path / "w"), "FORCE_COLOR": "1"}
    for words in (["--help"], ["nightly", "--date", "tomorrow"], ["nihgtly"]):
        coloured, grey = (
            subprocess.run([*COMMAND, *words], capture_output=True, text=True, env=plain(**place, **more), timeout=60)
            for more in ({}, {"NO_COLOR": "1"})
        )
        colour = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;)[0-9;]*m")
        assert colour.search(coloured.stdout + coloured.stderr), "the check itself sees colours"
        assert not colour.search(grey.stdout + grey.stderr)


def test_a_mistyped_command_is_answered_with_the_one_meant() -> None:
    result = CliRunner().invoke(app, ["nihgtly"])
    assert result.exit_code == 2 and "'nightly'" in result.stderr
    result = CliRunner().invoke(app, ["day", "skipp", "2026-01-01"])
    assert result.exit_code == 2 and "'skip'" in result.stderr


@pytest.mark.parametrize(
    "words", [["nihgtly"], ["history", "--limit", "none"], ["history", "--limitt", "3"], ["day", "skip"], ["rollback"]]
)
def test_with_json_a_mistyped_command_is_one_object(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--json"])
    document = json.loads(result.stdout)
    assert document.keys() == stopped("", "", 0).keys()
    assert (result.exit_code, document["exit_code"], document["kind"]) == (2, 2, "usage") and document["reason"]


def test_a_mistyped_night_has_the_keys_of_a_night() -> None:
    result = CliRunner().invoke(app, ["nightly", "--datte", "2026-01-01", "--json"])
    assert json.loads(result.stdout)["verdict"] == "failed"


# ---------------------------------------------------------------------------------------------------------- completion


def completed(line: str, workspace: Path) -> list[str]:
    """What a bash that has run `goalrank --install-completion` would offer."""
    words = line.split(" ")
    asked = {"_GOALRANK_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    environment = plain(**asked, GOALRANK_WORKSPACE=str(workspace))
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_commands_and_values(tmp_path: Path) -> None:
    for night in ("nights/2026-01-08/1", "nights/2026-01-09/1", "nights/2026-01-09/2", "logs/requests/dt=2026-01-10"):
        (tmp_path / night).mkdir(parents=True)
    assert completed("goalrank night", tmp_path) == ["nightly"]
    assert completed("goalrank nightly --preset ", tmp_path) == ["tiny", "small", "base", "large"]
    assert completed("goalrank nightly --date 2026", tmp_path) == ["2026-01-10"]
    assert completed("goalrank promote --date ", tmp_path) == ["2026-01-09", "2026-01-08"]
    assert completed("goalrank promote --run 2026-01-09", tmp_path) == ["2026-01-09/2", "2026-01-09/1"]
    assert completed("goalrank ab-test --policies champion,r", tmp_path) == ["champion,retriever", "champion,random"]
    assert completed("goalrank promote --date ", tmp_path / "none") == []


def test_policies_that_are_completed_are_policies() -> None:
    from components.experiments.policies import parse as policies
    from console.completion import POLICIES

    assert policies(",".join(POLICIES)) == list(POLICIES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_installs(tmp_path: Path, shell: str) -> None:
    """Into a home folder of its own; which shell it is, Typer asks the process that called."""
    script = (
        "import typer.completion as completion\n"
        f"shell, path = completion.install(shell={shell!r}, prog_name='goalrank', complete_var='_GOALRANK_COMPLETE')\n"
        "print(path)"
    )
    environment = plain(HOME=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path) and "_GOALRANK_COMPLETE" in path.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ start-up

HEAVY = {"torch", "pyspark", "mlflow", "feast", "great_expectations", "kfp", "pandas", "matplotlib", "scipy", "sklearn"}
NUMBERS = {"numpy", "pyarrow"}
"""What a workspace's tables need; no help does."""


def imported(words: list[list[str]], workspace: Path) -> set[str]:
    """Top-level packages a process holds after these commands."""
    script = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom console.main import app\n"
        f"for words in {words!r}:\n"
        "    result = CliRunner().invoke(app, words)\n"
        "    assert result.exit_code in (0, 2), (words, result.output)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    environment = plain(GOALRANK_WORKSPACE=str(workspace))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_no_help_imports_a_tool(tmp_path: Path) -> None:
    found = imported([[*path, "--help"] for path, _ in TREE], tmp_path)
    assert not found & (HEAVY | NUMBERS), found & (HEAVY | NUMBERS)


READ_PARQUET = (["clean"], ["migrate"], ["erase-user", "5"])
"""And pyarrow imports pandas for that."""


@pytest.mark.parametrize(
    "words", [["history"], ["doctor"], ["day", "list"], ["rank", "{"], *READ_PARQUET], ids=" ".join
)
def test_a_command_imports_no_tool_it_does_not_need(tmp_path: Path, words: list[str]) -> None:
    allowed = {"pandas"} if words in READ_PARQUET else set()
    found = imported([words], tmp_path)
    assert not found & HEAVY - allowed, found & HEAVY


def test_the_check_of_imports_sees_them(tmp_path: Path) -> None:
    assert "numpy" in imported([["history"]], tmp_path)
