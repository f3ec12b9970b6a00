"""The documents: every command parses, every link leads somewhere, what is made from the code is as the code says."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.help import MistypedError
from console.settings import Settings
from pipelines import STEPS
from scripts import configuration_page, figures
from scripts.site_pages import LINK, linked, slug
from tests import command_tree
from tests.documents import NEEDS, PAGES, REPOSITORY, SHELL, Block, blocks, shell_blocks

MADE_UP = {"DATE": "2026-01-08", "N": "2", "VERSION": "3", "TEXT": "why", "DATE/N": "2026-01-08/1"}
"""What is put for the words that a person fills in."""

PROGRAMS = {
    *("aws", "cd", "cp", "curl", "docker", "echo", "eval", "export", "for", "git", "kill", "kubectl", "less", "mlflow"),
    *("mv", "mypy", "openssl", "printf", "read", "rm", "ruff", "sed", "sleep", "source", "tr", "unzip"),
}
"""Programs beside ours that a page may tell to type; of these only the shell's own syntax is checked."""

KEYWORDS = {"do", "done", "until", "while", "if", "then", "fi", "!", "{", "}"}

BLOCKS = [block for page in PAGES for block in shell_blocks(page)]


def names(blocks: list[Block]) -> list[str]:
    return [block.place for block in blocks]


def simple_commands(text: str) -> Iterator[list[str]]:
    """Words of every simple command of a shell text, without variables in front and redirections; `$(...)` too."""
    text = re.sub(r"<<-?\s*['\"]?(\w+)['\"]?(.*?)\n.*?^\1$", r"\2", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(^|\s)#(?=\s|$).*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    outer: list[list[str]] = []  # commands whose `$(` is still open
    redirected = False
    for token in [*lexer, "\n"]:
        if redirected:
            redirected = False
        elif set(token) <= set("<>&") and set(token) & set("<>"):
            redirected = not token.endswith("&")
        elif set(token) <= set("();|&\n"):
            for mark in token:
                if mark == "(" and words and words[-1].endswith("$"):
                    outer.append([*words[:-1], words[-1] + "1"])
                    words = []
                    continue
                while words and (words[0] in KEYWORDS or re.match(r"[A-Z_]+=", words[0])):
                    words.pop(0)
                if words:
                    yield words
                words = outer.pop() if mark == ")" and outer else []
        else:
            words.append(token)
            for inner in re.findall(r"\$\(([^()]*)\)", token):
                yield from simple_commands(inner)


def parse(words: list[str]) -> None:
    """Raises what `goalrank` itself would say of these words, and runs nothing."""
    filled = [MADE_UP.get(word, re.sub(r"\$\{.*?\}|\$\w+", "1", word)) for word in words]
    if asked := {"--help", "--version"} & set(filled):
        filled = filled[: min(filled.index(word) for word in asked)]
        commands = dict(command_tree.walk())
        assert tuple(filled) in commands, f"no such command: {' '.join(filled)}"
        return
    command_tree.parse(shlex.join(["goalrank", *filled]))


@pytest.mark.parametrize(
    "line",
    [
        "nightyl",
        "nightly --presett base",
        "day skip DATE",
        "history --limit none",
        "import csv FILE --columns a",
        "rank -x",
    ],
)
def test_a_command_that_is_wrong_would_be_seen(line: str) -> None:
    with pytest.raises(MistypedError):
        parse(line.split())


def test_commands_are_found_wherever_they_stand() -> None:
    text = """
for x in a b; do goalrank history; done   # said
LEFT=$(goalrank rollback --dry-run --json | python3 -c 'print("goalrank")') && A=1 goalrank clean \\
  --dry-run > file
echo "$(goalrank watch --once)" <<END
goalrank nothing
END
"""
    found = [words for words in simple_commands(text) if words[0] == "goalrank"]
    assert found == [
        ["goalrank", "history"],
        ["goalrank", "rollback", "--dry-run", "--json"],
        ["goalrank", "clean", "--dry-run"],
        ["goalrank", "watch", "--once"],
    ]


@pytest.mark.parametrize("block", BLOCKS, ids=names(BLOCKS))
def test_every_command_parses(block: Block) -> None:
    """goalrank's by goalrank's own parser, make's targets and Python's modules by what is there, all by the shell."""
    checked = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    found = list(simple_commands(block.text))
    assert found, "a block without a command"
    for words in found:
        program, *rest = words
        if Path(program).name == "goalrank":
            parse(rest)
        elif program == "make":
            asked = [word for word in rest if "=" not in word and not word.startswith("-")]
            assert set(asked) <= set(targets) and asked, f"make {asked}: no such target"
        elif program in ("python", "python3") and rest[:1] == ["-m"]:
            module = REPOSITORY / rest[1].replace(".", "/")
            assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), rest[1]
        elif program in ("python", "python3"):
            assert rest[0] == "-c" or (REPOSITORY / rest[0]).exists(), rest
        else:
            assert program in PROGRAMS, f"{program} is no program that the documents may tell to type"


@pytest.mark.parametrize("block", BLOCKS, ids=names(BLOCKS))
def test_variables_it_sets_are_read_by_somebody(block: Block) -> None:
    known = {f"GOALRANK_{name.upper()}" for name in Settings.model_fields} | set(configuration_page.OTHERS)
    for name in re.findall(r"\b(GOALRANK_[A-Z_]+)=", block.text):
        assert name in known, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_the_text_parse(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for said in re.findall(r"`((?:GOALRANK_\w+=\S+ )*goalrank [a-z][^`]*)`", text):
        said = " ".join(said.split())
        if re.search(r"\.\.\.|\[|[<>]", said):
            continue  # what is left open is no command
        for words in simple_commands(said):
            try:
                parse(words[1:])
            except MistypedError as error:
                # Named, not typed: `goalrank rollback --to`.
                unfinished = type(error).__name__ in ("MissingParameter", "BadOptionUsage", "NoArgsIsHelpError")
                assert unfinished, f"{page.name}: `{said}`: {error}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_in_other_blocks_parse(page: Path) -> None:
    for block in blocks(page, ""):
        for line in block.text.splitlines():
            if line.startswith("goalrank "):
                for words in simple_commands(line):
                    parse(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shell_block_is_seen(page: Path) -> None:
    """A fence with more behind its language would be no block to us, and broken on the site."""
    text = page.read_text(encoding="utf-8")
    opened = re.findall(r"^```(.+)$", text, re.MULTILINE)
    assert all(re.fullmatch(r"[a-z]+", info) for info in opened), opened
    assert len(shell_blocks(page)) == sum(info in SHELL for info in opened)


@pytest.mark.parametrize("block", BLOCKS, ids=names(BLOCKS))
def test_a_need_is_one_of_those_the_guide_explains(block: Block) -> None:
    if block.needs is None:
        return
    word, _, where = block.needs.partition(": ")
    assert word in NEEDS, f"{block.place} needs {block.needs!r}, expected one of {', '.join(NEEDS)}"
    if where:  # tests of its own
        files = [REPOSITORY / name for name in where.split(", ")]
        assert all(file.is_file() for file in files), f"{block.place}: no {where}"
        said = "".join(file.read_text(encoding="utf-8") for file in files)
        if word == "own":
            assert "typed(" in said and block.page.name in said, f"{where} types no block of {block.page.name}"
            return
        for words in simple_commands(block.text):
            if words[0] == "goalrank":
                assert f'"{words[1]}"' in said or f"goalrank {words[1]}" in said, f"{where} does not run {words[1]}"


def test_the_guide_explains_every_need() -> None:
    guide = (REPOSITORY / "docs" / "contributing.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `needs: ([a-z]+)` \|", guide, re.MULTILINE)) == set(NEEDS)


# --------------------------------------------------------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """Of a page's headings, and those that are written out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        anchor, number = slug(LINK.sub(r"\g<text>", title)), 0
        while (name := anchor if number == 0 else f"{anchor}-{number}") in found:
            number += 1
        found.add(name)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for match in LINK.finditer(text):
        target = match["target"]
        anchor = target.partition("#")[2]
        file = page if target.startswith("#") else linked(target, page)
        if file is None:
            assert re.match(r"https://", target), f"{target}: neither a path nor https"
            continue
        assert file.exists(), f"{page.name}: {target} is not there"
        assert file.is_relative_to(REPOSITORY), f"{target} leads out of the repository"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.name}: {target}: no such heading"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), [REPOSITORY / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for match in LINK.finditer(page.read_text(encoding="utf-8")):
            file = linked(match["target"], page)
            if file is not None and file.suffix == ".md" and file not in reached and file.exists():
                todo.append(file)
    assert reached >= set(PAGES)


# ------------------------------------------------------------------------------------------------------ made from code


def test_the_configuration_page_is_current() -> None:
    assert configuration_page.PAGE.read_text(encoding="utf-8") == configuration_page.page(), "run `make docs`"


def test_every_variable_that_is_read_is_on_the_configuration_page() -> None:
    settings = {f"GOALRANK_{name.upper()}" for name in Settings.model_fields}
    read = set(configuration_page.variables_read())
    assert read - settings - set(configuration_page.OTHERS) <= configuration_page.OURS
    assert set(configuration_page.OTHERS) <= read, "nobody reads it any more"


def test_examples_of_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configuration_page.EXAMPLES.keys() == Settings.model_fields.keys()
    for name, example in configuration_page.EXAMPLES.items():
        monkeypatch.setenv(f"GOALRANK_{name.upper()}", example)
    Settings()


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_is_current_and_loads_nothing(name: str) -> None:
    drawn = figures.FIGURES[name]()
    assert (figures.FOLDER / name).read_text(encoding="utf-8") == drawn, "run `make docs`"
    assert not re.search(r"href|url\((?!#)|<script|@import", drawn)


MOST_BYTES = 300_000
"""Of a picture: a page of documents must not weigh more than what it is about."""


def test_pictures_are_small() -> None:
    pictures = [file for file in figures.FOLDER.iterdir() if file.suffix in (".png", ".svg")]
    assert {"report.png", "night.svg"} <= {file.name for file in pictures}
    assert all(file.stat().st_size <= MOST_BYTES for file in pictures)


def test_the_figure_of_the_night_has_every_step() -> None:
    drawn = figures.night()
    assert [step for step in STEPS if f">{step}<" not in drawn] == []
