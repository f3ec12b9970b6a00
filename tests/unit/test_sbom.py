"""The bill of materials: what the installers report is in it, and it is valid CycloneDX."""

from __future__ import annotations

import json

import pytest

from scripts.sbom import bill, text

REPORT = {
    "installed": [
        {"metadata": {"name": "GoalRank", "version": "0.1.0", "requires_dist": ["torch>=2.6"]}},
        {
            "metadata": {
                "name": "torch",
                "version": "2.13.0+cpu",
                "license_expression": "BSD-3-Clause",
                "requires_dist": ["Typing_Extensions>=4", "triton; platform_system == 'Nowhere'", "absent"],
            }
        },
        {"metadata": {"name": "typing_extensions", "version": "4.16.0", "license": "the whole\ntext"}},
    ]
}


def document() -> dict:
    return json.loads(text(bill("goalrank/train", REPORT, ["openjdk-17-jre-headless 17.0.15+6-1 amd64"])))


def test_what_is_installed_is_listed_once_with_its_version() -> None:
    listed = {component["purl"]: component for component in document()["components"]}
    assert set(listed) == {
        "pkg:pypi/torch@2.13.0%2Bcpu",
        "pkg:pypi/typing-extensions@4.16.0",
        "pkg:deb/debian/openjdk-17-jre-headless@17.0.15%2B6-1?arch=amd64",
    }
    assert listed["pkg:pypi/torch@2.13.0%2Bcpu"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert "licenses" not in listed["pkg:pypi/typing-extensions@4.16.0"]
    assert document()["metadata"]["component"]["name"] == "goalrank/train"


def test_what_needs_what_is_told() -> None:
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document()["dependencies"]}
    assert needs["pkg:pypi/torch@2.13.0%2Bcpu"] == ["pkg:pypi/typing-extensions@4.16.0"]
    assert len(needs["goalrank/train"]) == 3


def test_an_invalid_document_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def output_as_string(self, indent: int) -> str:
            return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "no type"}]})

    monkeypatch.setattr("scripts.sbom.make_outputter", lambda *given: Broken())
    with pytest.raises(ValueError, match="no valid CycloneDX 1.6"):
        text(bill("goalrank", REPORT, []))
