"""docs/deploy.md as it is typed: its selector, its secrets typed twice with a kubectl of ours, a patch, a quota."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.cluster import SIZES, SPARK_STEPS, Cluster
from tests.cluster.rendered import K8S, ROOT, Object, name_of, of_kind, overlay, pods, render
from tests.documents import blocks, shell_blocks

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


def test_the_patch_for_another_port_adds_a_rule(tmp_path: Path) -> None:
    (block,) = [one for one in blocks(DEPLOY, "yaml") if "NetworkPolicy" in one.text]
    to = os.path.relpath(K8S, tmp_path.resolve())
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [f"{to}/base"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(head | yaml.safe_load(block.text)))
    patched, plain = (
        next(one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == "night")["spec"]["egress"]
        for objects in (render(tmp_path), overlay("prod"))
    )
    assert patched[:-1] == plain and patched[-1]["ports"] == [{"protocol": "TCP", "port": 8443}]


def processors(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)


def test_the_executors_it_gives_dev_fit_its_quota() -> None:
    """Beside the step that asks for them and what stands in the namespace; the ones of no setting do not."""
    objects = overlay("dev")
    (quota,) = of_kind(objects, "ResourceQuota")
    standing = [processors(one["resources"]["requests"]["cpu"]) for pod in pods(objects) for one in pod.containers]
    step = max(processors(SIZES[step].cpu) for step in SPARK_STEPS)
    room = processors(quota["spec"]["hard"]["requests.cpu"]) - sum(standing) - step
    page = DEPLOY.read_text(encoding="utf-8")
    ((executors, cores),) = re.findall(r"`GOALRANK_SPARK_EXECUTORS=(\d+)`\s`GOALRANK_SPARK_CORES=(\d+)`", page)
    assert int(executors) * int(cores) <= room
    assert Cluster().spark_executors * Cluster().spark_cores > room, "the page's sentence is not needed any more"


@pytest.mark.parametrize("environment", ["dev", "staging"])
def test_the_bucket_is_made_in_the_store_that_mlflow_asks(environment: str) -> None:
    maps = of_kind(overlay(environment), "ConfigMap")
    (config,) = [one for one in maps if one["metadata"]["name"].startswith("mlflow")]
    page = DEPLOY.read_text(encoding="utf-8")
    ((service, port),) = re.findall(r"port-forward --namespace kubeflow service/(?!ml-pipeline)(\S+) (\d+)", page)
    assert config["data"]["MLFLOW_S3_ENDPOINT_URL"] == f"http://{service}.kubeflow:{port}"
    assert f"http://127.0.0.1:{port} s3 mb {config['data']['MLFLOW_ARTIFACTS_DESTINATION']}\n" in page
