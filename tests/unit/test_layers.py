"""The layers: goalrank is the method alone; components import goalrank; pipelines components; console pipelines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from goalrank_platform import root

PLATFORM = {"kfp", "mlflow", "feast", "pyspark", "great_expectations"}
FORBIDDEN = {
    "goalrank": PLATFORM | {"components", "pipelines", "console", "goalrank_platform"},
    "components": {"pipelines", "console"},
    "feature_repo": {"components", "pipelines", "console"},
    "pipelines": {"console"},
}


def imports(file: Path) -> set[str]:
    """Top-level names that `file` imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_nothing_imports_upwards(folder: str) -> None:
    files = sorted((root() / folder).rglob("*.py"))
    assert files, f"no Python files found in {folder}"
    wrong = {str(f.relative_to(root())): bad for f in files if (bad := imports(f) & FORBIDDEN[folder])}
    assert not wrong


def test_the_import_check_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text("def f():\n    import mlflow.pyfunc\n    from feast import Entity\n")
    assert imports(file) == {"mlflow", "feast"}


def test_every_step_has_the_same_files() -> None:
    from pipelines import STEPS

    for step in STEPS:
        folder = root() / "components" / step
        missing = [name for name in ("__init__.py", "component.py", "main.py") if not (folder / name).is_file()]
        assert not missing, f"{step} lacks {missing}"
