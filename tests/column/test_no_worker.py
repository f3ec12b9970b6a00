"""A Spark master without workers: work is not waited for without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import spark
from components.step import Step
from goalrank.errors import TryAgain
from tests.column import servers

pytestmark = pytest.mark.timeout(600)


def test_work_that_no_worker_takes_may_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "WORKER_SECONDS", 5.0)
    with (
        servers.spark(tmp_path / "spark", workers=0) as cluster,
        pytest.raises(TryAgain, match=f"no worker of {cluster.master} has taken work for 5 s; start workers"),
        Step("waiting", str(tmp_path)) as step,
        spark.spark_session(step, cluster.master) as session,
    ):
        session.range(10).count()
