"""A software bill of materials in CycloneDX 1.6 JSON, of this environment or of an image: `make sbom`.

    python -m scripts.sbom --output build/sbom/environment.cdx.json
    python -m scripts.sbom --engine podman --image goalrank/serve:0.1.0 --output build/sbom/serve.cdx.json

It lists what is installed, by the installers' own records (pip inspect, dpkg), not what a lock file asks for; nothing
is looked up on a network. The document is held against the standard's schema before it is written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from goalrank import __version__

VERSION = SchemaVersion.V1_6
PIP = ["-m", "pip", "inspect", "--local"]
DPKG = "dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\\n' || :"  # a base may have none


def read(engine: str = "", image: str = "") -> tuple[dict[str, Any], list[str]]:
    """What pip and dpkg say is installed: pip's report, and a line "name version architecture" a package.

    Of this environment pip alone speaks: the machine's own packages are no part of a delivery.
    """
    if not image:
        return json.loads(_said([sys.executable, *PIP])), []
    inside = [engine, "run", "--rm", "--network=none", image]
    return json.loads(_said([*inside, "python", *PIP])), _said([*inside, "sh", "-c", DPKG]).splitlines()


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def bill(name: str, report: dict[str, Any], debian: list[str]) -> Bom:
    """The bill of one delivery.

    Args:
        name: of the delivery (an image, or the environment).
        report: of `pip inspect`.
        debian: lines "name version architecture".
    """
    bom = Bom()
    bom.metadata.component = whole = Component(
        name=name, version=__version__, type=ComponentType.APPLICATION, bom_ref=name
    )
    packages = {canonicalize_name(one["metadata"]["name"]): one["metadata"] for one in report["installed"]}
    packages.pop("goalrank", None)  # the subject itself
    components = {key: _python_component(key, metadata) for key, metadata in packages.items()}
    for key, component in components.items():
        bom.components.add(component)
        needs = (Requirement(text) for text in packages[key].get("requires_dist", []))
        names = {canonicalize_name(one.name) for one in needs if one.marker is None or one.marker.evaluate()}
        bom.register_dependency(component, [components[one] for one in sorted(names & components.keys())])
    system = [_debian_component(line) for line in debian]
    bom.components.update(system)
    bom.register_dependency(whole, [*components.values(), *system])
    return bom


def _python_component(key: str, metadata: dict[str, Any]) -> Component:
    purl = PackageURL("pypi", name=key, version=metadata["version"])
    licence = metadata.get("license_expression") or metadata.get("license", "")
    named = licence and "\n" not in licence and len(licence) < 100  # some packages put the whole text there
    return Component(
        name=metadata["name"],
        version=metadata["version"],
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[LicenseFactory().make_from_string(licence)] if named else [],
        description=metadata.get("summary"),
    )


def _debian_component(line: str) -> Component:
    name, version, architecture = line.split()
    purl = PackageURL("deb", "debian", name, version, {"arch": architecture})
    return Component(name=name, version=version, purl=purl, bom_ref=purl.to_string())


def text(bom: Bom) -> str:
    """The bill as JSON.

    Raises:
        ValueError: the document does not meet the standard's schema.
    """
    document = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=1)
    if error := JsonStrictValidator(VERSION).validate_str(document):
        raise ValueError(f"the bill is no valid CycloneDX {VERSION.to_version()}: {error}")
    return document + "\n"


def main() -> None:
    """Write one bill and say how much it lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="", help="image to look into; without it, this environment")
    parser.add_argument("--engine", default="docker", help="docker or podman")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    report, debian = read(asked.engine, asked.image)
    document = text(bill(asked.image.partition(":")[0] or "goalrank", report, debian))
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(document, encoding="utf-8")
    listed = len(json.loads(document)["components"])
    print(f"{asked.output}: {listed} packages ({len(debian)} of Debian), valid CycloneDX {VERSION.to_version()}")


if __name__ == "__main__":
    main()
