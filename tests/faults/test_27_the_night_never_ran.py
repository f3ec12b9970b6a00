"""The night never ran: the rules that a cluster is given, played by promtool through hours in which no night came.

The series are the ranking service's own metric and the namespace's existence: nothing of Kubeflow, Argo or the night.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.cluster.exported import metrics, read_by
from tests.cluster.promtool import promtool
from tests.cluster.rendered import of_kind, overlay
from tests.faults.conftest import Seen

ALERT, AGE = "GoalRankNightNeverRan", "goalrank_newest_version_timestamp_seconds"
OF_THE_CLUSTER = {"kube_namespace_created"}
"""From kube-state-metrics: that the environment exists."""
SILENT_HOURS = 26


def rules() -> list[dict[str, Any]]:
    """The groups of prod's PrometheusRule, without texts: promtool compares those too."""
    (found,) = of_kind(overlay("prod"), "PrometheusRule")
    for group in found["spec"]["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    return found["spec"]["groups"]


def fires_at(folder: Path, hours: float, values: str) -> bool:
    """Whether the alert fires after so many hours in which the metric took these values, one every five minutes."""
    expected = [{"exp_labels": {"namespace": "goalrank-prod", "severity": "critical"}}]
    outcomes = {}
    for fired, alerts in ((True, expected), (False, [])):
        played = {
            "rule_files": ["alerts.yaml"],
            "evaluation_interval": "5m",
            "tests": [
                {
                    "interval": "5m",
                    "input_series": [
                        {"series": 'kube_namespace_created{namespace="goalrank-prod"}', "values": "1x720"},
                        {"series": f'{AGE}{{namespace="goalrank-prod", pod="a"}}', "values": values},
                    ],
                    "alert_rule_test": [{"eval_time": f"{int(hours * 60)}m", "alertname": ALERT, "exp_alerts": alerts}],
                }
            ],
        }
        (folder / "alerts.yaml").write_text(yaml.safe_dump({"groups": rules()}))
        (folder / "played.yaml").write_text(yaml.safe_dump(played))
        outcomes[fired] = promtool(folder, "test", "rules", "played.yaml").returncode == 0
    assert outcomes[True] != outcomes[False]  # else promtool failed for another reason
    return outcomes[True]


def test_nobody_registered_a_version(tmp_path: Path, seen: Seen) -> None:
    (rule,) = [rule for group in rules() for rule in group["rules"] if rule.get("alert") == ALERT]
    assert AGE in metrics(), "the service exports it"
    assert read_by(rule["expr"]) == {AGE} | OF_THE_CLUSTER
    quiet = fires_at(tmp_path, SILENT_HOURS - 0.5, "0x720")
    late = fires_at(tmp_path, SILENT_HOURS + 0.5, "0x720")
    assert (quiet, late) == (False, True)
    seen(
        f"no night for {SILENT_HOURS} hours, servers alive",
        f"{ALERT} fires, by what the servers know of the registry",
    )


def test_a_night_that_came_silences_it_and_a_dead_server_does_not(tmp_path: Path, seen: Seen) -> None:
    # A version 20 hours in (240 samples): silent until 26 hours after that one.
    came = f"0x239 {20 * 3600}x480"
    assert not fires_at(tmp_path, 40, came)
    assert fires_at(tmp_path, 47, came)
    # The only server dies after an hour: what it last said grows stale, and the alert does not wait for it.
    assert fires_at(tmp_path, 30, "0x12")
    seen("a night at hour 20, then none; the only server dead", "silent to hour 46, then it fires; it fires")
