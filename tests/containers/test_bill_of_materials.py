"""The bill of materials of an image names what the image holds: read again here by other means than the bill's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.utils import canonicalize_name

from goalrank_platform import root
from tests.containers.conftest import ENGINE, IMAGES, podman

pytestmark = pytest.mark.timeout(3600)  # whichever test comes first builds the images and lives the nights

INSIDE = """
import importlib.metadata, json, pathlib
status = pathlib.Path("/var/lib/dpkg/status").read_text()
records = [dict(line.split(": ", 1) for line in record.splitlines() if not line.startswith(" ") and ": " in line)
           for record in status.split("\\n\\n") if record.strip()]
print(json.dumps({
    "python": [[found.metadata["Name"], found.version] for found in importlib.metadata.distributions()],
    "debian": [[one["Package"], one["Version"]] for one in records if one["Status"].endswith(" installed")],
}))
"""
"""What Python's own metadata and dpkg's own database say, without pip and dpkg-query, which the bill asks."""


def listed(document: Path) -> dict[str, dict[str, str]]:
    """Kind -> name -> version, as a bill has them."""
    found: dict[str, dict[str, str]] = {"pypi": {}, "deb": {}}
    for component in json.loads(document.read_text(encoding="utf-8"))["components"]:
        kind, _, rest = component["purl"].removeprefix("pkg:").partition("/")
        name, _, version = rest.partition("?")[0].removeprefix("debian/").rpartition("@")
        assert unquote(version) == component["version"]
        assert found[kind].setdefault(unquote(name), component["version"]) == component["version"], "named once"
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_a_bill_names_what_its_image_holds(
    images: dict[str, str], name: str, tmp_path: Path, summary: list[str]
) -> None:
    target = tmp_path / f"{name}.cdx.json"
    asked = ["--engine", "podman", "--image", images[name], "--output", str(target)]
    command = [sys.executable, "-m", "scripts.sbom", *asked]
    made = subprocess.run(command, capture_output=True, text=True, cwd=root(), env=os.environ | ENGINE)
    assert made.returncode == 0, made.stderr
    held = json.loads(podman("run", "--rm", "--network=none", images[name], "python", "-c", INSIDE).stdout)
    python = {canonicalize_name(package): version for package, version in held["python"]}
    bill = listed(target)
    assert bill["pypi"] == python
    assert bill["deb"] == dict(held["debian"])
    assert json.loads(target.read_text())["metadata"]["component"]["name"] == f"goalrank/{name}"
    lines = (line.split("==") for line in (root() / "constraints.txt").read_text().split() if "==" in line)
    pins = {canonicalize_name(package): version for package, version in lines}
    pinned = {package: version for package, version in python.items() if package in pins}
    assert {package: version.partition("+")[0] for package, version in pinned.items()} == {
        package: pins[package].partition("+")[0] for package in pinned
    }, "versions are those of constraints.txt"
    summary.append(f"bill of {images[name]}: {len(python)} packages of Python and {len(held['debian'])} of Debian")
