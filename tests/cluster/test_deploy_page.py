"""docs/deploy.md as it is typed: what its selector leaves out, and its secrets typed twice, with a kubectl of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.rendered import ROOT, Object, name_of
from tests.documents import shell_blocks

DEPLOY = ROOT / "docs" / "deploy.md"

KUBECTL = f"""#!{sys.executable}
import json, os, re, sys
file, words = os.environ["SECRETS"], sys.argv[1:]
with open(file) as store:
    secrets = json.load(store)
if words[:3] == ["create", "secret", "generic"]:
    if words[3] in secrets:
        sys.exit(f"secrets {{words[3]}} already exists")
    literals = (word.partition("=")[2].partition("=") for word in words if word.startswith("--from-literal="))
    secrets[words[3]] = {{key: value for key, _, value in literals}}
    with open(file, "w") as store:
        json.dump(secrets, store)
elif words[:2] == ["get", "secret"]:
    if words[2] not in secrets:
        sys.exit(f"secrets {{words[2]}} not found")
    (key,) = re.findall(r'index .data "([a-z-]+)"|[.]data[.](\\w+)', words[-1])
    sys.stdout.write(secrets[words[2]]["".join(key)])
"""
"""Keeps secrets as the API server does: one that exists is not made again."""

OPENSSL = f"""#!{sys.executable}
import secrets
print(secrets.token_hex(24))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in (("kubectl", KUBECTL), ("openssl", OPENSSL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "secrets.json").write_text("{}")
    return tmp_path


def type_(text: str, home: Path) -> dict[str, dict[str, str]]:
    """Types commands as a person does, who goes on where one fails; the secrets afterwards."""
    bash = shutil.which("bash")
    assert bash
    path = f"{home}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "SECRETS": str(home / "secrets.json"), "NAMESPACE": "goalrank-prod", "WEBHOOK": "https://x"}
    keys = {"AWS_ACCESS_KEY_ID": "ours", "AWS_SECRET_ACCESS_KEY": "too"}
    for line in re.split(r"(?<!\\)\n", text):
        if line.strip():
            variables = home / "variables"
            script = (
                f"test -f {variables} && . {variables}\n{line}\ndeclare -p FEAST_PASSWORD REDIS_PASSWORD >{variables}"
            )
            subprocess.run([bash, "-c", script], env=given | keys, capture_output=True, timeout=60)
    return json.loads((home / "secrets.json").read_text())


def commands() -> list[str]:
    """Those that make secrets, each on a line of its own."""
    (block,) = [one for one in shell_blocks(DEPLOY) if "create secret generic" in one.text]
    return re.split(r"(?<!\\)\n", block.text.strip())


def test_secrets_fit_each_other_and_typed_again_stay_as_they_are(home: Path) -> None:
    made = type_("\n".join(commands()), home)
    postgres, redis, feast = made["goalrank-postgres"], made["goalrank-redis"], made["goalrank-feast"]
    assert f"feast:{postgres['feast-password']}@" in feast["GOALRANK_FEAST_REGISTRY"]
    assert feast["GOALRANK_REDIS"].endswith(f"password={redis['password']}")
    assert len({*postgres.values(), redis["password"]}) == 4, "a password each"
    assert made["goalrank-s3"] == {"AWS_ACCESS_KEY_ID": "ours", "AWS_SECRET_ACCESS_KEY": "too"}
    assert type_("\n".join(commands()), home) == made


@pytest.mark.parametrize("typed", range(1, 5))
def test_secrets_fit_where_the_block_was_cut_short(home: Path, typed: int) -> None:
    """A terminal that was lost after some of the commands, and another in which all are typed."""
    type_("\n".join(commands()[:typed]), home)
    (home / "variables").unlink()
    made = type_("\n".join(commands()), home)
    assert f"feast:{made['goalrank-postgres']['feast-password']}@" in made["goalrank-feast"]["GOALRANK_FEAST_REGISTRY"]
    assert made["goalrank-feast"]["GOALRANK_REDIS"].endswith(f"password={made['goalrank-redis']['password']}")


def test_what_needs_a_champion_is_left_for_later(objects: list[Object]) -> None:
    (named,) = re.findall(r"--selector 'app\.kubernetes\.io/name notin \((.+)\)'", DEPLOY.read_text(encoding="utf-8"))
    left = {
        name_of(one)
        for one in objects
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/name") in named.split(", ")
    }
    assert left == {"InferenceService/goalrank-ranker", "Service/goalrank-ranker-metrics", "CronJob/watch-champion"}
