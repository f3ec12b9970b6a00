"""Python, goalrank and its tools: what is installed, against pyproject.toml's ranges and constraints.txt's pins."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from console.doctor.findings import OK, PROBLEM, WARNING, Check, Finding
from goalrank import __version__
from goalrank_platform import root

GROUP = "versions"
SHOWN = ("torch", "pyspark", "great-expectations", "feast", "mlflow", "kfp")
"""Tools with a line of their own; of the others only what is wrong is said."""
MEND = "`make setup` installs what is pinned; without make: pip install -c constraints.txt goalrank"


def python() -> list[Finding]:
    """The interpreter, and where goalrank runs from."""
    version = sys.version.split()[0]
    enough = sys.version_info >= (3, 11)
    return [
        Finding(GROUP, "Python", OK if enough else PROBLEM, f"{version}, {sys.executable}", "" if enough else "3.11+"),
        Finding(GROUP, "goalrank", OK, f"{__version__}, {root()}"),
    ]


def tools() -> list[Finding]:
    """Every direct dependency."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    needed = [Requirement(text) for text in _requirements()]
    pins = _pins(root() / "constraints.txt")
    findings, others = [], 0
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        finding = _tool(name, requirement.specifier, pins.get(name))
        if finding.status != OK or name in SHOWN:
            findings.append(finding)
        else:
            others += 1
    findings.sort(key=lambda finding: SHOWN.index(finding.name) if finding.name in SHOWN else len(SHOWN))
    said = f"{others} more are as {'pinned' if pins else 'pyproject.toml asks for'}"
    return [*findings, Finding(GROUP, "other tools", OK, said)]


def _tool(name: str, allowed: object, pin: str | None) -> Finding:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    assert isinstance(allowed, SpecifierSet)
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(GROUP, name, PROBLEM, f"not installed, expected {pin or allowed or 'any'}", MEND)
    if not allowed.contains(Version(found).public, prereleases=True):
        return Finding(GROUP, name, PROBLEM, f"{found}, expected {allowed}", MEND)
    if pin is not None and Version(found).public != Version(pin).public:
        return Finding(GROUP, name, WARNING, f"{found}, tested with {pin}", MEND)
    return Finding(GROUP, name, OK, found)


def _requirements() -> list[str]:
    """Direct dependencies, extras left out: of the checkout, else of the installed package."""
    project = root() / "pyproject.toml"
    if project.is_file():
        return list(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])
    return [text for text in metadata.requires("goalrank") or [] if "extra ==" not in text]


def _pins(constraints: Path) -> dict[str, str]:
    """name -> exact version; empty where goalrank is installed without its constraints."""
    from packaging.utils import canonicalize_name

    text = constraints.read_text(encoding="utf-8") if constraints.is_file() else ""
    return {canonicalize_name(name): pin for name, pin in re.findall(r"^([\w.\-]+)==([^\s;]+)", text, re.MULTILINE)}


CHECKS = (Check(GROUP, "Python", python), Check(GROUP, "tools", tools))
