"""The Dockerfiles: small promises that need no container engine. Building and running them is tests/containers."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from components.images import DATA_IMAGE, SERVING_IMAGE, TRAIN_IMAGE
from goalrank_platform import root

IMAGES = {"data": DATA_IMAGE, "train": TRAIN_IMAGE, "serve": SERVING_IMAGE}
FOLDER = root() / "components" / "images"
FIRST_PARTY = {"goalrank", "components", "pipelines", "console", "feature_repo"}

PACKAGES = {
    "yaml": "kfp",
    "dask": "feast",
    "pydantic_core": "pydantic",
    "markupsafe": "jinja2",
    "sqlalchemy": "mlflow",
    "docker": "kfp",
    "kubernetes": "kfp",
    "urllib3": "kfp",
}
"""Modules that come with a package of another name, which asks for them."""

ON_THE_CLUSTER = {"hiredis", "psycopg", "pyspark", "redis"}
"""Imported by Feast for the cluster's stores, not by us."""

BESIDE = {"serve": ("components.serve_model.main", "console.serving", "console.settings", "console.command")}
"""What an image runs beside the steps that name it."""


def instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    lines = [line for line in (FOLDER / f"{name}.Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def packages(name: str) -> set[str]:
    """Names an image's requirements ask for."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    return {line.partition("[")[0] for line in lines if line and not line.startswith("#")}


def pinned() -> set[str]:
    lines = (root() / "constraints.txt").read_text().splitlines()
    return {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}


def imported(modules: tuple[str, ...]) -> dict[str, str]:
    """Third-party modules that modules of ours import, anywhere and through each other -> a file that does."""
    found: dict[str, str] = {}
    seen: set[Path] = set()
    ahead = list(modules)
    while ahead:
        name = ahead.pop()
        path = root().joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not file.is_file() or file in seen:
            continue
        seen.add(file)
        ahead += [name.rpartition(".")[0]] if "." in name else []
        for node in _run_imports(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias}" for alias in names] + [str(node.module)]
            for one in names:
                top = one.split(".")[0]
                if top in FIRST_PARTY:
                    ahead.append(one)
                elif top not in sys.stdlib_module_names and top != "goalrank_platform":
                    found.setdefault(top, str(file.relative_to(root())))
    return found


def _run_imports(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """The imports that happen, so not those for type checkers alone."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            found += _run_imports(node)
    return found


def steps_of(image: str) -> list[str]:
    """The components whose kfp signature names an image."""
    variable = {"data": "DATA_IMAGE", "train": "TRAIN_IMAGE", "serve": "SERVING_IMAGE"}[image]
    files = sorted((root() / "components").glob("*/component.py"))
    return [file.parent.name for file in files if f"base_image={variable}" in file.read_text()]


@pytest.mark.parametrize("name", IMAGES)
def test_a_component_image_is_no_command_and_not_root(name: str) -> None:
    used = instructions(name)
    assert not {"ENTRYPOINT", "CMD"} & {instruction for instruction, _ in used}
    assert used[-1] == ("USER", "1000:1000")
    assert used[0][0] == "ARG" and used[0][1].startswith("BASE=")
    assert [arguments for instruction, arguments in used if instruction == "FROM"] == ["${BASE}"]


@pytest.mark.parametrize("name", IMAGES)
def test_everything_is_pinned(name: str) -> None:
    used = instructions(name)
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.11\.\d+-slim-bookworm", used[0][1])
    assert "latest" not in (FOLDER / f"{name}.Dockerfile").read_text()
    installs = re.findall(
        r"pip install (.*?)(?= &&|$)", "\n".join(line for kind, line in used if kind == "RUN"), re.MULTILINE
    )
    assert installs
    for install in installs:
        assert "--constraint /opt/pins/constraints.txt" in install or "grep '^torch=='" in install
    assert packages(name) <= pinned()


def test_the_images_names_are_those_of_the_manifests() -> None:
    assert {name: image.partition(":")[0] for name, image in IMAGES.items()} == {
        name: f"goalrank/{name}" for name in IMAGES
    }


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_asks_for_what_its_steps_import_and_no_more(name: str) -> None:
    modules = [f"components.{step}.{file}" for step in steps_of(name) for file in ("component", "main")]
    needed = imported((*modules, *BESIDE.get(name, ())))
    asked = packages(name)
    package = {module: PACKAGES.get(module, module.replace("_", "-")) for module in needed}
    lacking = {module: file for module, file in needed.items() if package[module] not in asked}
    assert not lacking, "add the package to the image, or keep its import out of these steps' way"
    assert asked - set(package.values()) <= ON_THE_CLUSTER, "nothing imports it"


def test_every_step_has_an_image() -> None:
    components = {file.parent.name for file in (root() / "components").glob("*/component.py")}
    assert {step for name in IMAGES for step in steps_of(name)} == components


def test_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((root() / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[<>= ]", line)[0] for line in project}
    asked = set.union(*(packages(name) for name in IMAGES))
    assert asked - names <= ON_THE_CLUSTER


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("goalrank/schema.py", True),
        ("components/images/data.txt", True),
        ("feature_repo/feature_store.cluster.yaml", True),
        ("constraints.txt", True),
        (".venv/bin/python", False),
        (".goalrank/logs/world.json", False),
        (".git/config", False),
        ("build/wheels/torch.whl", False),
        ("docs/method.md", False),
        ("tests/unit/test_images.py", False),
        ("goalrank/__pycache__/schema.cpython-311.pyc", False),
        ("console/.env", False),
        ("secrets.json", False),
    ],
)
def test_what_is_sent_to_a_build(path: str, sent: bool) -> None:
    assert reaches_a_build(path, (root() / ".dockerignore").read_text()) is sent


def reaches_a_build(path: str, ignore: str) -> bool:
    """Does a .dockerignore let a file through? The last line that fits the file or a folder above it decides."""
    parts = PurePosixPath(path).parts
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    sent = True
    for line in ignore.splitlines():
        pattern = line.removeprefix("!")
        if not pattern or line.startswith("#"):
            continue
        if pattern.startswith("**/"):
            fits = any(PurePosixPath(one).match(pattern.removeprefix("**/")) for one in above)
        else:
            fits = pattern == "*" or pattern in above
        if fits:
            sent = line.startswith("!")
    return sent
