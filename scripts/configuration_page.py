"""docs/configuration.md from the settings themselves; `python -m scripts.configuration_page` (`make docs`) writes it.

What a setting is called, means and is without being set comes from console/settings.py; where it is read, from the
code; an example, from here. A test holds the committed page to what this makes.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from console.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "configuration.md"
PREFIX = "GOALRANK_"
_CODE = ("console", "components", "pipelines", "feature_repo")
_RESOLVED = "console/settings.py"

GROUPS = {
    "workspace": "Where things are kept",
    "preset": "The night",
    "runner": "Tools: one machine or a cluster",
    "host": "The service",
    "kfp_endpoint": "Kubeflow",
}
"""The first setting of each group, and the group's title."""

EXAMPLES = {
    "workspace": "/srv/goalrank",
    "logs_uri": "/data/logs",
    "snapshots_uri": "/data/snapshots",
    "feast_uri": "/data/feast",
    "tracking_uri": "http://mlflow.example.org:5000",
    "journal_uri": "/data/journal",
    "preset": "base",
    "seed": "7",
    "group_plan": "helpers=retriever,mmr,random:4 own=8",
    "objective": "temperature=0.5 supervised_weight=10",
    "warm_start": "champion",
    "train_processes": "2",
    "window_days": "60",
    "allow_bootstrap": "true",
    "off_policy": "veto",
    "latency_budget_ms": "50",
    "size_budget_mb": "200",
    "runner": "docker",
    "spark_master": "spark://spark.example.org:7077",
    "spark_memory": "4g",
    "spark_executor_memory": "8g",
    "feature_store": "cluster",
    "feast_registry": "postgresql+psycopg://feast:PASSWORD@db.example.org/feast",
    "redis": "redis.example.org:6379,password=PASSWORD",
    "host": "0.0.0.0",
    "port": "8001",
    "exploration": "0.1",
    "holdback": "0.1",
    "serve_version": "12",
    "train_on_served": "true",
    "champion_poll_seconds": "30",
    "feature_keep_seconds": "60",
    "watch_days": "3",
    "kfp_endpoint": "https://kubeflow.example.org/pipeline",
    "kfp_namespace": "goalrank-prod",
    "kfp_token": "TOKEN",
    "kfp_token_file": "/run/secrets/kfp-token",
    "service_account": "goalrank-night",
    "cron": "0 0 3 * * *",
    "time_zone": "Europe/Paris",
    "data_image": "registry.example.org/goalrank-data@sha256:...",
    "train_image": "registry.example.org/goalrank-train@sha256:...",
    "serving_image": "registry.example.org/goalrank-serve@sha256:...",
    "image_tags": "true",
    "gpus": "2",
    "gpu_resource": "nvidia.com/mig-3g.40gb",
    "gpu_taint": "sku",
    "gpu_node_label": "cloud.google.com/gke-accelerator=nvidia-l4",
    "train_nodes": "2",
    "group_parts": "8",
    "spark_executors": "4",
    "spark_cores": "8",
    "canary_service": "goalrank-ranker",
    "prometheus": "http://prometheus.example.org:9090",
    "volume_claim": "goalrank-workspace",
}

OTHERS = {
    "GOALRANK_NOTIFY_URL": (
        "webhook that is told how each night went; empty: nobody is told",
        "https://hooks.example.org/goalrank",
    ),
    "GOALRANK_CANARY_ACCOUNT": (
        "folder with the service account's token, namespace and ca.crt, where a promotion drives a canary; set by "
        "the pipeline",
        "/var/run/secrets/goalrank-canary",
    ),
    "GOALRANK_RUN_ID": (
        "the run's own name, by which its steps find their folder; set by the pipeline on a cluster",
        "6f1c2f0e-2f43-4d0b-9f1e-8f2b7f0a1c55",
    ),
}
"""Variables that steps read and that are no settings, with what they mean and an example."""

OURS = {"GOALRANK_OFFLINE_ROOT", "GOALRANK_FEAST_ROOT"}
"""Variables by which a step tells Feast's files its folders: set by the code, for nobody else."""

_HEAD = """# Configuration

<!-- Made by `make docs` (scripts/configuration_page.py): change console/settings.py and make it again. -->

Every setting is an environment variable, such as `GOALRANK_PRESET=tiny goalrank nightly`. A command's flag comes before
it: `goalrank nightly --preset base` wins. Nothing needs to be set on one machine. A value that makes no sense is
refused with exit code 2, before anything is started, and the message names the variable.

What holds a password (`GOALRANK_FEAST_REGISTRY`, `GOALRANK_REDIS`, `GOALRANK_KFP_TOKEN`) can only be a variable: no
parameter, file or report of a run has it. On a cluster it comes from a secret ([deploy](deploy.md)).
"""

_TAIL = """
## Variables that are no settings

Read by a step from its own environment.

| variable | what | example | read in |
|---|---|---|---|
{others}

`MLFLOW_*` and `AWS_*` are MLflow's and the S3 client's own. `JAVA_HOME` is Spark's. `OMP_NUM_THREADS` limits torch's
threads. `NO_COLOR` takes the colours off the terminal.

## Sizes

`GOALRANK_PRESET` sets the size of the models and the length of training, never the data: `tiny` is for tests, `small`
for two cores, `base` and `large` for a GPU. The numbers stand in [goalrank/presets.py](../goalrank/presets.py). Limits
of the data gates stand in [components/gate_limits.py](../components/gate_limits.py), those of the verdict in
[goalrank/verdict/thresholds.py](../goalrank/verdict/thresholds.py): they are code, with a reason each, and no settings.
"""

_MOST_PLACES = 4  # a setting read in more files than these is read everywhere


def page() -> str:
    """The whole page."""
    where = attributes_read()
    variables = variables_read()
    parts = [_HEAD]
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            parts.append(
                f"\n## {GROUPS[name]}\n\n| variable | what | default | example | read in |\n|---|---|---|---|---|\n"
            )
        places = sorted((where.get(name, set()) | variables.get(PREFIX + name.upper(), set())) - {_RESOLVED})
        row = (
            f"`{PREFIX}{name.upper()}`",
            _meaning(field),
            _default(field),
            f"`{EXAMPLES[name]}`",
            _named(places),
        )
        parts.append(f"| {' | '.join(row)} |\n")
    others = "\n".join(
        f"| `{name}` | {meaning} | `{example}` | {_named(sorted(variables[name]))} |"
        for name, (meaning, example) in OTHERS.items()
    )
    return "".join(parts) + _TAIL.format(others=others)


def _named(places: list[str]) -> str:
    return ", ".join(f"`{place}`" for place in places) if len(places) <= _MOST_PLACES else "most commands"


def _meaning(field: FieldInfo) -> str:
    said = (field.description or "").replace("|", "\\|")
    kind = field.annotation
    if get_origin(kind) is Literal:
        return f"{said.removesuffix('?')}: " + " or ".join(f"`{value}`" for value in get_args(kind))
    limits = [
        f"{word} {getattr(limit, sign):g}"
        for limit in field.metadata
        for sign, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))
        if hasattr(limit, sign)
    ]
    return f"{said} ({' '.join(limits)})" if limits else said


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr) or value in ("", None):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def attributes_read() -> dict[str, set[str]]:
    """Files in which a setting is read as `settings.NAME` (in console/settings.py: `self.NAME`)."""
    found: dict[str, set[str]] = {}
    for file in _files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "settings":
                found.setdefault(node.attr, set()).add(str(file.relative_to(REPOSITORY)))
    return found


def variables_read() -> dict[str, set[str]]:
    """Files in which a variable GOALRANK_... is read from the environment, by Feast's own files too."""
    found: dict[str, set[str]] = {}
    for file in _files():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            asked: ast.expr | None = None
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv") and node.args:
                asked = node.args[0]
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
                asked = node.slice
            if asked is None:
                continue
            name = constants.get(asked.id) if isinstance(asked, ast.Name) else getattr(asked, "value", None)
            if isinstance(name, str) and name.startswith(PREFIX):
                found.setdefault(name, set()).add(str(file.relative_to(REPOSITORY)))
    for file in sorted((REPOSITORY / "feature_repo").glob("*.yaml")):
        for name in re.findall(rf"\$\{{({PREFIX}\w+)\}}", file.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(str(file.relative_to(REPOSITORY)))
    return found


def _files() -> list[Path]:
    return sorted(file for folder in _CODE for file in (REPOSITORY / folder).rglob("*.py"))


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(REPOSITORY)}: {len(Settings.model_fields)} settings", file=sys.stderr)


if __name__ == "__main__":
    main()
