"""One settings object; it alone says which column of docs/architecture.md's table the system runs in.

Every field can be set by an environment variable GOALRANK_<NAME> (GOALRANK_SPARK_MASTER=spark://...). What is empty is
derived from the workspace: the embedded default of one machine. What holds a password (feast_registry, redis) is a
variable only: steps read it from their own environment, and no parameter, artifact or file of a run gets to see it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.spark_memory import mebibytes
from goalrank.errors import UsageError
from goalrank.naming import require_address, require_folder, require_workspace_named
from goalrank.presets import preset as preset_named
from goalrank.verdict import LATENCY_BUDGET_MS, SIZE_BUDGET_MB


class Settings(BaseSettings):
    """Where things are kept and how the night runs."""

    model_config = SettingsConfigDict(env_prefix="GOALRANK_", extra="ignore")

    workspace: Path = Field(Path(".goalrank"), description="folder of everything the system keeps on one machine")
    logs_uri: str = Field("", description="feedback logs; empty: the workspace's own")
    snapshots_uri: str = Field("", description="feature snapshots; empty: WORKSPACE/snapshots")
    feast_uri: str = Field("", description="Feast registry and stores; empty: WORKSPACE/feast")
    tracking_uri: str = Field("", description="MLflow; empty: SQLite in WORKSPACE/mlflow")
    journal_uri: str = Field("", description="journal of promotions; empty: WORKSPACE/journal")

    preset: str = Field("small", description="model size and training length: tiny, small, base, large")
    seed: int = Field(0, description="of everything random")
    group_plan: str = Field("", description="groups not as the preset makes them: helpers=mmr,random:4 own=8 refresh=1")
    objective: str = Field("", description="what the ranker learns by, if not the default: supervised_weight=10")
    warm_start: Literal["none", "champion"] = Field("none", description="what a ranker's training begins with")
    train_processes: int = Field(1, ge=1, description="processes that train the ranker together, by torchrun")
    window_days: int = Field(30, ge=2, description="arrival days in the training set")
    allow_bootstrap: bool = Field(False, description="may a first champion go live with only the absolute floor?")
    off_policy: Literal["required", "veto"] = Field(
        "required", description="must logged propensities clear a challenger, or may they only stop it?"
    )
    latency_budget_ms: float = Field(LATENCY_BUDGET_MS, gt=0, description="most that one list may take on one CPU")
    size_budget_mb: float = Field(SIZE_BUDGET_MB, gt=0, description="most that a ranker's weights may weigh")
    runner: Literal["subprocess", "docker"] = Field(
        "subprocess",
        description="how the steps of a night run on this machine: processes, or containers of their images",
    )
    spark_master: str = Field("local[2]", description="Spark master: local[N], spark://HOST:PORT, k8s://...")
    spark_memory: str = Field("1g", description="memory of the Spark driver; on a cluster its pod grows with it")
    spark_executor_memory: str = Field("", description="memory of each executor beside it; empty: the driver's")
    feature_store: Literal["local", "cluster"] = Field(
        "local", description="files and SQLite, or Spark, Redis and PostgreSQL (feature_repo/feature_store.*.yaml)"
    )
    feast_registry: SecretStr = Field(SecretStr(""), description="Feast's registry, postgresql+psycopg://...; cluster")
    redis: SecretStr = Field(SecretStr(""), description="online store, HOST:PORT,password=...; feature store cluster")

    host: str = Field("127.0.0.1", description="address the ranking service listens on")
    port: int = Field(8000, ge=0, le=65535, description="port the ranking service listens on")
    exploration: float = Field(0.02, ge=0, le=1, description="share of requests answered with a sampled list")
    holdback: float = Field(0.05, ge=0, lt=1, description="share of users answered by the champion's predecessor")
    serve_version: str = Field("", description="serve this version and follow nobody: set by a canary, not by hand")
    train_on_served: bool = Field(
        False, description="does `goalrank nightly` first collect what the service has logged?"
    )
    champion_poll_seconds: float = Field(5.0, gt=0, description="how often a server asks the registry for a champion")
    feature_keep_seconds: float = Field(300.0, ge=0, description="longest time a server keeps a feature row in memory")
    watch_days: float = Field(7.0, gt=0, description="how long `goalrank watch` compares a new champion with it")

    kfp_endpoint: str = Field("", description="address of Kubeflow Pipelines; the cluster's commands need it")
    kfp_namespace: str = Field("", description="your namespace there; empty where it has one user only")
    kfp_token: SecretStr = Field(SecretStr(""), description="bearer token for it")
    kfp_token_file: Path | None = Field(None, description="file with the token, read at every request; or the token")
    service_account: str = Field("goalrank-night", description="Kubernetes service account of the steps")
    cron: str = Field("0 30 2 * * *", description="when the night runs: six fields, seconds first")
    time_zone: str = Field("UTC", description="time zone of Kubeflow's scheduler (its CRON_SCHEDULE_TIMEZONE)")
    data_image: str = Field("", description="image of the data steps, by digest")
    train_image: str = Field("", description="image of the training steps, by digest")
    serving_image: str = Field("", description="image of the serving steps, by digest")
    image_tags: bool = Field(False, description="may images be named by a tag? Kubeflow's cache then trusts the tag")
    gpus: int = Field(1, ge=0, le=16, description="GPUs of each training step")
    gpu_resource: str = Field("nvidia.com/gpu", description="what Kubernetes calls a GPU of yours, DOMAIN/NAME")
    gpu_taint: str = Field("nvidia.com/gpu", description="key of the taint of nodes with GPUs; empty: they have none")
    gpu_node_label: str = Field(
        "nvidia.com/gpu.present=true", description="label of nodes to train on, KEY=VALUE; empty: any with the GPUs"
    )
    train_nodes: int = Field(1, ge=1, le=64, description="machines that train the ranker, by a TrainJob; cluster")
    group_parts: int = Field(1, ge=1, le=1000, description="pods that make the groups together, a part each; cluster")
    spark_executors: int = Field(2, ge=1, description="executors of a step where Spark's master is k8s://...")
    spark_cores: int = Field(4, ge=1, description="processors of each of them")
    canary_service: str = Field("", description="InferenceService a promotion drives by stages; empty: no canary")
    prometheus: str = Field("", description="address of Prometheus, by whose figures a canary is judged")
    volume_claim: str = Field("goalrank-workspace", description="claim of the volume that all steps share")

    @field_validator("workspace", mode="before")
    @classmethod
    def _named(cls, folder: object) -> object:
        if isinstance(folder, str):
            require_workspace_named(folder)
        return folder

    @field_validator("spark_memory", "spark_executor_memory")
    @classmethod
    def _amount(cls, amount: str, field: ValidationInfo) -> str:
        if amount or field.field_name == "spark_memory":
            mebibytes(f"GOALRANK_{str(field.field_name).upper()}", amount)
        return amount

    @classmethod
    def load(cls, **overrides: object) -> Settings:
        """Environment first, then what the command line gave (None means: not given); paths made absolute.

        Raises:
            UsageError: a folder or URI has a trap in it (goalrank/naming.py).
        """
        given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
        settings = cls(**given)
        # Resolved as well: a link may lead to a folder with a trap in its name.
        workspace = require_folder("--workspace", require_folder("--workspace", settings.workspace).resolve())
        derived = {
            "workspace": workspace,
            "snapshots_uri": settings.snapshots_uri or str(workspace / "snapshots"),
            "feast_uri": settings.feast_uri or str(workspace / "feast"),
            "tracking_uri": settings.tracking_uri or f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}",
            "journal_uri": settings.journal_uri or str(workspace / "journal"),
        }
        for name in ("snapshots_uri", "feast_uri", "tracking_uri", "journal_uri"):
            require_address(f"GOALRANK_{name.upper()}", derived[name])
        return settings.model_copy(update=derived)

    def require_training(self) -> None:
        """See that the preset exists, that groups can be made as the plan says and that there is such an objective,
        before anything is started.

        Raises:
            UsageError: no such preset, the plan makes no groups, or the objective is none.
        """
        chosen = preset_named(self.preset)
        if self.group_plan:
            from goalrank.group_plan import planned  # torch: not at every command's start

            planned(chosen, self.group_plan)
        if self.objective:
            from goalrank.objective import objective_of  # torch

            objective_of(self.objective)

    def require_stores(self) -> None:
        """See that the addresses of the chosen feature store are given, before anything is started.

        Raises:
            UsageError: the cluster's is chosen and one is missing.
        """
        if self.feature_store == "cluster":
            needed = {"GOALRANK_FEAST_REGISTRY": self.feast_registry, "GOALRANK_REDIS": self.redis}
            missing = [name for name, value in needed.items() if not value.get_secret_value()]
            if missing:
                raise UsageError(
                    f"GOALRANK_FEATURE_STORE is cluster, but {' and '.join(missing)} found empty; set the address, or "
                    "GOALRANK_FEATURE_STORE=local for files and SQLite"
                )
