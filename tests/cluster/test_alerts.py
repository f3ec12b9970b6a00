"""The alerts fire where they must, name metrics that exist, and lead to the runbook."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.promote_model.canary import Plan
from tests.cluster.exported import metrics, read_by
from tests.cluster.promtool import promtool
from tests.cluster.rendered import ROOT, Object, of_kind, overlay

SERIES = sorted(Path(__file__).parent.glob("*.test.yaml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
OTHERS = {
    "up",
    "kube_namespace_created",
    "kube_job_failed",
    "kube_cronjob_status_last_successful_time",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
}
"""Of Prometheus itself, kube-state-metrics and the kubelet."""


@pytest.fixture
def groups(objects: list[Object]) -> list[dict[str, Any]]:
    (rules,) = of_kind(objects, "PrometheusRule")
    return rules["spec"]["groups"]


@pytest.fixture
def alerts(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found) > 10
    return found


def said(folder: Path, *arguments: str) -> str:
    """What promtool says where it finds nothing wrong."""
    done = promtool(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_rules(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))
    assert "SUCCESS" in said(tmp_path, "check", "rules", "alerts.yaml")


@pytest.mark.parametrize("series", SERIES, ids=lambda file: file.name)
def test_series_played_through_them(series: Path, tmp_path: Path) -> None:
    (rules,) = of_kind(overlay("prod"), "PrometheusRule")
    groups = copy.deepcopy(rules["spec"]["groups"])
    for group in groups:
        for rule in group["rules"]:
            del rule["annotations"]  # promtool compares texts too; what is asked here is who hears of what, and when
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))
    shutil.copy(series, tmp_path)
    assert "SUCCESS" in said(tmp_path, "test", "rules", series.name)


def test_the_rules_are_the_same_everywhere(groups: list[dict[str, Any]]) -> None:
    """So that playing one environment's is enough."""
    (rules,) = of_kind(overlay("prod"), "PrometheusRule")
    assert groups == rules["spec"]["groups"]


def test_every_alert_is_seen_to_fire_and_to_be_silent(alerts: list[dict[str, Any]]) -> None:
    seen: dict[str, set[bool]] = {}
    for test in [test for file in SERIES for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]:
        for one in test["alert_rule_test"]:
            seen.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert seen == {rule["alert"]: {True, False} for rule in alerts}


def test_the_metrics_exist(alerts: list[dict[str, Any]]) -> None:
    for rule in alerts:
        read = read_by(rule["expr"])
        assert read and read <= metrics() | OTHERS, rule["alert"]
    assert {name for rule in alerts for name in read_by(rule["expr"])} >= OTHERS


def test_a_trial_is_old_when_no_canary_takes_so_long(alerts: list[dict[str, Any]]) -> None:
    (rule,) = [rule for rule in alerts if rule["alert"] == "GoalRankTrialOld"]
    plan = Plan()
    longest = len(plan.stages) * (plan.ready_seconds + plan.longest_seconds) + plan.ready_seconds
    assert longest < int(rule["for"].removesuffix("h")) * 3600


def test_labels_that_are_matched_are_labels_the_service_sets(alerts: list[dict[str, Any]]) -> None:
    """A filter on a value that the code never writes would be silent for ever."""
    said = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "components" / "serve_model").glob("*.py"))
    checked = 0
    for rule in alerts:
        for name, labels in re.findall(r"(goalrank_\w+)\{([^}]*)\}", rule["expr"]):
            for value in re.findall(r"(?:outcome|kind|role|endpoint)(?:=|!=|=~|!~)\"([^\"]*)\"", labels):
                for one in value.split("|"):
                    assert f'"{one}"' in said, (rule["alert"], name, one)
                    checked += 1
    assert checked >= 6


def test_every_alert_has_its_section(alerts: list[dict[str, Any]]) -> None:
    titles = re.findall(r"^#{2,3} (.+)$", RUNBOOK, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"): title for title in titles}
    for rule in alerts:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / page).is_file() and anchor in anchors, rule["alert"]
        body = RUNBOOK.split(f"# {anchors[anchor]}\n", 1)[1].split("\n## ")[0].split("\n### ")[0]
        assert f"`{rule['alert']}`" in body, f"{anchors[anchor]} does not name {rule['alert']}"
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("critical", "warning")


def test_the_runbook_names_no_alert_that_is_gone(alerts: list[dict[str, Any]]) -> None:
    named = set(re.findall(r"`(GoalRank[A-Z]\w+)`", RUNBOOK))
    assert named == {rule["alert"] for rule in alerts}


def test_reading_an_expression() -> None:
    assert read_by('sum by (a, b) (rate(x_total{kind!="y"}[5m])) / on (a) group_left max(z) > 0.01') == {"x_total", "z"}
    assert read_by('a{b="c"} unless on (d) (time() - max by (d) (e) < 26 * 3600)') == {"a", "e"}
