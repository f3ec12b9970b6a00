"""What the images hold, who they run as, and that they run where nothing but /tmp can be written."""

from __future__ import annotations

import json

import pytest

from tests.containers.conftest import IMAGES, podman

pytestmark = pytest.mark.timeout(3600)  # whichever test comes first builds the images and lives the nights

LOCKED = [
    "--rm",
    "--network=none",
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
]
"""As a pod of the `restricted` standard."""

ABSENT = {"data": ("torch", "mlflow", "matplotlib"), "train": ("pyspark", "feast"), "serve": ("great_expectations",)}

NEEDED = {
    "data": ("pyspark", "great_expectations", "feast.infra.online_stores.redis", "psycopg"),
    "train": ("torch", "mlflow", "great_expectations"),
    "serve": (
        "torch",
        "mlflow",
        "matplotlib",
        "uvicorn",
        # What the cluster's feature_store.yaml has Feast import, for whoever reads online too.
        "feast.infra.offline_stores.contrib.spark_offline_store.spark",
        "feast.infra.online_stores.redis",
        "psycopg",
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_no_command_and_not_root(images: dict[str, str], name: str) -> None:
    config = json.loads(podman("image", "inspect", images[name]).stdout)[0]["Config"]
    assert not config.get("Entrypoint")
    assert config["User"] == "1000:1000"
    ran = podman("run", *LOCKED, images[name], "sh", "-c", "id -u && ls /opt/goalrank && ! touch /opt/x 2>&1")
    assert ran.stdout.split()[0] == "1000"
    assert set(ran.stdout.split()) & {"tests", ".git", "build", "docs", ".venv"} == set()


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_what_its_steps_need_and_no_more(images: dict[str, str], name: str) -> None:
    code = f"""
import importlib, importlib.util
for module in {NEEDED[name]!r}:
    importlib.import_module(module)
print([module for module in {ABSENT[name]!r} if importlib.util.find_spec(module)])
"""
    # From a file: Spark takes `python -c` for its own doctests and ends the process with 0.
    from_a_file = ["sh", "-c", 'printf "%s" "$0" > /tmp/check.py && python /tmp/check.py', code]
    ran = podman("run", *LOCKED, images[name], *from_a_file, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command", [["goalrank", "serve", "--help"], ["python", "-m", "components.watch_champion.main", "--help"]]
)
def test_the_serving_image_knows_the_commands_of_its_pods(images: dict[str, str], command: list[str]) -> None:
    ran = podman("run", *LOCKED, images["serve"], *command, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "holdback" in ran.stdout


def test_java_runs_where_spark_does(images: dict[str, str]) -> None:
    for name in ("data", "serve"):
        assert "17." in podman("run", *LOCKED, images[name], "java", "-version").stderr
