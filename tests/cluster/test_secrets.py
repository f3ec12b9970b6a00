"""No secret is in the tree: Secrets come without values, and nothing looks like a key or a password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.rendered import K8S, ROOT, Object, name_of, of_kind, pods

SUSPICIOUS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "an access key of AWS": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.)"),
    "a password in an address": re.compile(r"[a-z+]+://[^\s:/@]+:(?!\$\()[^\s@/]+@"),
    "a literal for a secret's name": re.compile(
        r"(?i)\b\w*(?:password|passwd|secret_?(?:access_)?key|api_?key|token)\b['\"]?\s*(?::\s|:\"|=)\s*['\"]?"
        r"(?!\s|['\"]?\s*$|\$|%s|true\b|false\b)[A-Za-z0-9+/_.-]{4,}"
    ),
    "a long random text": re.compile(
        r"(?<![\w:/@.-])(?=[A-Za-z0-9+]*\d)(?=[A-Za-z0-9+]*[A-Z])[A-Za-z0-9+]{32,}={0,2}(?!\w)"
    ),
}


def suspicions(text: str) -> list[str]:
    """What looks like a secret in a text, a line each."""
    return [
        f"line {number}: {what}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in SUSPICIOUS.items()
        if pattern.search(line)
    ]


def files() -> list[Path]:
    return sorted(file for file in K8S.rglob("*") if file.is_file())


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_holds_a_secret(file: Path) -> None:
    assert suspicions(file.read_text(encoding="utf-8")) == []


def test_secrets_have_no_values(objects: list[Object]) -> None:
    for secret in of_kind(objects, "Secret"):
        assert not secret.get("data") and not secret.get("stringData"), name_of(secret)


def test_what_is_secret_comes_from_a_secret(objects: list[Object]) -> None:
    """A variable whose name says that it is secret has no value of its own, unless it is put together from others."""
    for pod in pods(objects):
        for container in pod.containers:
            for variable in container.get("env", []):
                if re.search(r"PASSWORD|SECRET|TOKEN|AUTH$|KEY", variable["name"]):
                    assert "secretKeyRef" in variable.get("valueFrom", {}), (pod.owner, variable["name"])


@pytest.mark.parametrize(
    "line",
    [
        "password: hunter22",
        "AWS_SECRET_ACCESS_KEY=abcdefgh",
        "requirepass_token: 'abcd1234'",
        "uri: postgresql://mlflow:hunter2@postgres/mlflow",
        "  value: AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN RSA PRIVATE KEY-----",
        "key: wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY1",
        '{"api_key":"abcd1234"}',
        "authorization: ghp_abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_the_check_sees_secrets(line: str) -> None:
    assert suspicions(line)


@pytest.mark.parametrize(
    "line",
    [
        "secretKeyRef: {name: goalrank-postgres, key: mlflow-password}",
        "value: postgresql://mlflow:$(MLFLOW_DATABASE_PASSWORD)@postgres:5432/mlflow",
        f"digest: sha256:{'0a' * 32}",
        "automountServiceAccountToken: false",
        "CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';",
        "{path: /spec/volumeClaimTemplates/0/spec/resources/requests/storage}",
    ],
)
def test_the_check_leaves_the_rest_alone(line: str) -> None:
    assert suspicions(line) == []
