"""What one object says of another is true: names resolve, selectors select, ports are the containers' own."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import yaml

from components.feature_store import read_config
from components.spark_on_kubernetes import EXECUTOR
from components.train_ranker.train_job_manifest import PODS_ACCOUNT
from console.settings import Settings
from pipelines.cluster import FEAST_KEYS, FEAST_LABEL, FEAST_SECRET
from tests.cluster.rendered import K8S, ROOT, Object, Pod, name_of, of_kind, pods, selects
from tests.cluster.test_images import ours as our_images

DEPLOY = ROOT / "docs" / "deploy.md"

OF_A_RUN = {"workflows.argoproj.io/workflow": "goalrank-nightly-x"}
"""Argo labels the pods of a run so; Kubeflow makes them."""

NIGHT = Pod("a pod of a run", OF_A_RUN, {"containers": []})
FEAST_NIGHT = Pod("a pod of a run that opens the feature store", OF_A_RUN | dict([FEAST_LABEL]), {"containers": []})
NOBODYS = Pod("a pod with that label alone", dict([FEAST_LABEL]), {"containers": []})
STRANGERS = [NIGHT, FEAST_NIGHT, NOBODYS]
"""Pods that no object of ours has."""

KNATIVE_PORTS = {8012, 8112, 9090}
"""Of the proxy that Knative puts beside the server: HTTP, HTTPS, its metrics for the autoscaler."""

KUBEFLOW = {
    "ml-pipeline, HTTP": 8888,
    "ml-pipeline, gRPC": 8887,
    "metadata-grpc-service": 8080,
    "the artifact store, MinIO": 9000,
    "the artifact store, SeaweedFS": 8333,
}
"""Ports of pods of Kubeflow Pipelines that a run's pods speak to (kubeflow/pipelines, manifests/kustomize).

A policy is held against the pod's port, after the Service's has been translated: those before SeaweedFS say 9000, too.
Not in here: the database and the cache's webhook, which only Kubeflow and the API server ask.
"""

KUBEFLOWS_LABELS = {"kubernetes.io/metadata.name": "kubeflow"}
"""Of its namespace; the API server sets this one on each."""

STORE = {port for name, port in KUBEFLOW.items() if name.startswith("the artifact store")}

NIGHT_ALONE = {"goalrank-notify": {"GOALRANK_NOTIFY_URL"}}
"""Secrets that only steps of the night read; no object of ours names them."""

KUBEFLOWS_SCHEDULER = {"kind": "ServiceAccount", "name": "ml-pipeline-scheduledworkflow", "namespace": "kubeflow"}
"""Kubeflow Pipelines' own account, in whose name a recurring run becomes a run."""

SERVED_BY_KSERVE = "InferenceService/goalrank-ranker"


def values(node: Any, key: str) -> list[Any]:
    """Every value of a key, at any depth."""
    if isinstance(node, dict):
        here = [node[key]] if key in node else []
        return here + [found for value in node.values() for found in values(value, key)]
    return [found for value in node for found in values(value, key)] if isinstance(node, list) else []


def names(objects: list[Object], kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in of_kind(objects, kind)}


def secrets_made_by_hand() -> dict[str, set[str]]:
    """Secret -> keys, as docs/deploy.md has them typed."""
    text = DEPLOY.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"create secret generic ([a-z0-9-]+)([^\n]*)", text)
    return {name: set(re.findall(r"--from-literal=([A-Za-z0-9_.-]+)=", rest)) for name, rest in commands}


def test_accounts_and_config_maps_and_claims_exist(objects: list[Object]) -> None:
    claims = names(objects, "PersistentVolumeClaim")
    for pod in pods(objects):
        assert pod.spec["serviceAccountName"] in names(objects, "ServiceAccount"), pod.owner
        wanted = {one["name"] for key in ("configMapRef", "configMapKeyRef") for one in values(pod.spec, key)}
        wanted |= {one["name"] for one in values(pod.spec.get("volumes", []), "configMap")}
        assert wanted <= names(objects, "ConfigMap"), pod.owner
        assert {one["claimName"] for one in values(pod.spec, "persistentVolumeClaim")} <= claims, pod.owner


def test_secrets_are_those_the_page_has_you_make(objects: list[Object]) -> None:
    made, used = secrets_made_by_hand(), dict[str, set[str]]()
    for pod in pods(objects):
        for one in values(pod.spec, "secretKeyRef"):
            used.setdefault(one["name"], set()).add(one["key"])
        for one in values(pod.spec, "secretRef"):
            assert made.get(one["name"]), (
                f"{pod.owner} takes all keys of {one['name']}, which {DEPLOY.name} does not make"
            )
            used.setdefault(one["name"], set()).update(made[one["name"]])
        assert all(one.get("secretName") in made for one in values(pod.spec.get("volumes", []), "secret"))
    assert used | NIGHT_ALONE == made and made[FEAST_SECRET] == set(FEAST_KEYS)


def test_a_registrys_password_is_given_to_every_account_that_pulls_our_images(objects: list[Object]) -> None:
    images = our_images(objects)
    pulling = {
        pod.spec["serviceAccountName"] for pod in pods(objects) if images & {one["image"] for one in pod.containers}
    }
    (told,) = re.findall(r"^for account in (.+); do\n +kubectl patch serviceaccount", DEPLOY.read_text(), re.MULTILINE)
    assert set(told.split()) == pulling | {"goalrank-night", EXECUTOR, PODS_ACCOUNT}


def test_volumes_that_are_mounted_exist(objects: list[Object]) -> None:
    templates = {
        name_of(one): {claim["metadata"]["name"] for claim in one["spec"]["volumeClaimTemplates"]}
        for one in of_kind(objects, "StatefulSet")
    }
    for pod in pods(objects):
        there = {volume["name"] for volume in pod.spec.get("volumes", [])} | templates.get(pod.owner, set())
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        assert mounted == there, pod.owner


def test_bindings_bind_what_exists(objects: list[Object]) -> None:
    accounts, bound = names(objects, "ServiceAccount"), set()
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role" and binding["roleRef"]["name"] in names(objects, "Role")
        for subject in binding["subjects"]:
            if subject == KUBEFLOWS_SCHEDULER:
                assert binding["metadata"]["name"] == "goalrank-scheduled"
                continue
            assert subject["kind"] == "ServiceAccount" and subject["name"] in accounts
            assert subject["namespace"] == binding["metadata"]["namespace"]
        bound.add(binding["roleRef"]["name"])
    assert bound == names(objects, "Role")


def test_services_lead_to_ports_of_pods(objects: list[Object]) -> None:
    for service in of_kind(objects, "Service"):
        chosen = [pod for pod in pods(objects) if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        assert len(chosen) == 1, name_of(service)
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in chosen[0].ports, name_of(service)


def test_selectors_of_workloads_choose_their_own_pods(objects: list[Object]) -> None:
    found = {pod.owner: pod for pod in pods(objects)}
    for one in of_kind(objects, "Deployment", "StatefulSet"):
        chosen = [owner for owner, pod in found.items() if selects(one["spec"]["selector"], pod.labels)]
        assert chosen == [name_of(one)]
    for one in of_kind(objects, "StatefulSet"):
        assert one["spec"]["serviceName"] in names(objects, "Service")


def test_disruption_budgets_protect_somebody(objects: list[Object]) -> None:
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert budgets
    for budget in budgets:
        chosen = [pod for pod in pods(objects) if selects(budget["spec"]["selector"], pod.labels)]
        assert len(chosen) == 1, name_of(budget)


def test_prometheus_finds_the_service(objects: list[Object]) -> None:
    (monitor,) = of_kind(objects, "ServiceMonitor")
    chosen = [
        service
        for service in of_kind(objects, "Service")
        if selects(monitor["spec"]["selector"], service["metadata"].get("labels", {}))
    ]
    assert len(chosen) == 1
    ports = {port["name"] for port in chosen[0]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_nothing_is_allowed_by_default(objects: list[Object]) -> None:
    everything = [one for one in of_kind(objects, "NetworkPolicy") if one["spec"]["podSelector"] == {}]
    denying = [one for one in everything if not one["spec"].get("ingress") and not one["spec"].get("egress")]
    assert [set(one["spec"]["policyTypes"]) for one in denying] == [{"Ingress", "Egress"}]
    for one in of_kind(objects, "NetworkPolicy"):
        for direction in ("ingress", "egress"):
            for rule in one["spec"].get(direction, []):
                # A rule without peers or ports allows all of them.
                assert rule.get("from") or rule.get("to"), name_of(one)
                assert rule.get("ports"), name_of(one)


def test_ports_of_network_policies_are_ports_of_containers(objects: list[Object]) -> None:
    ours = [*pods(objects), *STRANGERS]
    for policy in of_kind(objects, "NetworkPolicy"):
        own = [pod for pod in ours if selects(policy["spec"]["podSelector"], pod.labels)]
        assert own, f"{name_of(policy)} selects nobody"
        for rule in policy["spec"].get("ingress", []):
            for pod in own:
                known = set(pod.ports) | (KNATIVE_PORTS if pod.owner == SERVED_BY_KSERVE else set())
                assert {port["port"] for port in rule["ports"]} <= known, name_of(policy)
        for rule in policy["spec"].get("egress", []):
            for peer in rule["to"]:
                if "namespaceSelector" in peer or "ipBlock" in peer:
                    continue
                for pod in chosen(peer, ours):
                    assert {port["port"] for port in rule["ports"]} <= set(pod.ports), (name_of(policy), pod.owner)


@pytest.mark.parametrize(
    "asking,wanted",
    [(NIGHT.owner, set(KUBEFLOW.values())), (NOBODYS.owner, set()), ("Deployment/mlflow", STORE)],
    ids=["the night", "nobody", "mlflow"],
)
def test_kubeflow_is_reached_at_the_ports_of_its_pods(objects: list[Object], asking: str, wanted: set[int]) -> None:
    (pod,) = [pod for pod in [*pods(objects), *STRANGERS] if pod.owner == asking]
    found = {
        port["port"]
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], pod.labels)
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "namespaceSelector" in peer and selects(peer["namespaceSelector"], KUBEFLOWS_LABELS)
        for port in rule["ports"]
    }
    assert found == wanted


def test_an_older_kubeflow_shows_artifacts() -> None:
    """Its pod is asked by Kubeflow's page alone, and asks Kubeflow's API and a store."""
    policy, *_ = yaml.safe_load_all((K8S / "components" / "baseline-pods" / "network.yaml").read_text(encoding="utf-8"))
    ((asked,), (asks, outside)) = policy["spec"]["ingress"], policy["spec"]["egress"]
    assert asked["from"] == asks["to"] == [{"namespaceSelector": {"matchLabels": KUBEFLOWS_LABELS}}]
    assert {port["port"] for port in asks["ports"]} == STORE | {KUBEFLOW["ml-pipeline, HTTP"]}
    assert [port["port"] for port in outside["ports"]] == [443]


def test_kubeflow_lets_the_namespace_in(objects: list[Object]) -> None:
    """Its policies ask for a profile's label (kubeflow/manifests, common/networkpolicies), ours for none of ours."""
    part_of = {name_of(one): one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") for one in objects}
    (namespace,) = of_kind(objects, "Namespace")
    assert part_of.pop(name_of(namespace)) == "kubeflow-profile"
    assert "kubeflow-profile" not in part_of.values()
    for selector in values(of_kind(objects, "NetworkPolicy"), "namespaceSelector"):
        asked = {*selector.get("matchLabels", {}), *(term["key"] for term in selector.get("matchExpressions", []))}
        assert asked == KUBEFLOWS_LABELS.keys(), selector


def chosen(peer: Object, ours: list[Pod]) -> list[Pod]:
    """Pods of the namespace that a peer names; one at least."""
    found = [pod for pod in ours if selects(peer["podSelector"], pod.labels)]
    assert found, f"{peer} is nobody"
    return found


def test_whoever_may_ask_is_let_in(objects: list[Object]) -> None:
    """Each conversation inside the namespace is allowed on both sides or on neither."""
    ours = [*pods(objects), *STRANGERS]
    out, in_ = set(), set()
    for policy in of_kind(objects, "NetworkPolicy"):
        own = [pod.owner for pod in ours if selects(policy["spec"]["podSelector"], pod.labels)]
        for direction, peers in (("egress", "to"), ("ingress", "from")):
            for rule in policy["spec"].get(direction, []):
                for peer in rule[peers]:
                    if "namespaceSelector" in peer or "ipBlock" in peer:
                        continue
                    others = [pod.owner for pod in chosen(peer, ours)]
                    for port in rule["ports"]:
                        pairs = {(a, b, port["port"]) for a in own for b in others}
                        if direction == "egress":
                            out |= pairs
                        else:
                            in_ |= {(b, a, port) for a, b, port in pairs}
    assert out == in_
    stores = {("StatefulSet/redis", 6379), ("StatefulSet/postgres", 5432)}
    mlflow = ("Deployment/mlflow", 5000)
    asked = {pod.owner: {(other, port) for asking, other, port in out if asking == pod.owner} for pod in ours}
    assert asked[SERVED_BY_KSERVE] == asked[FEAST_NIGHT.owner] == {mlflow} | stores
    assert asked[NIGHT.owner] == {mlflow} and asked[NOBODYS.owner] == set()


def test_settings_are_settings(objects: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pods get by environment variables is what the code reads, and the feature store needs no more."""
    (config,) = (one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "goalrank-settings")
    known = {f"GOALRANK_{name.upper()}" for name in Settings.model_fields}
    assert config["data"].keys() <= known
    for name in [name for name in os.environ if name.startswith("GOALRANK_")]:
        monkeypatch.delenv(name)
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.tracking_uri == "http://mlflow:5000" and str(settings.workspace) == "/workspace"
    for name in FEAST_KEYS:
        monkeypatch.setenv(name, "address")
    online = read_config(settings.feast_uri)["online_store"]
    assert online["type"] == "redis" and online["connection_string"].startswith("address,")


def test_the_canary_is_left_to_the_promote_step(objects: list[Object]) -> None:
    (service,) = of_kind(objects, "InferenceService")
    assert "canaryTrafficPercent" not in service["spec"]["predictor"]


def test_the_promoter_alone_touches_serving(objects: list[Object]) -> None:
    may = {
        role["metadata"]["name"]: rule
        for role in of_kind(objects, "Role")
        for rule in role["rules"]
        if "serving.kserve.io" in rule["apiGroups"]
    }
    rule = {
        "apiGroups": ["serving.kserve.io"],
        "resources": ["inferenceservices"],
        "resourceNames": ["goalrank-ranker"],
        "verbs": ["get", "patch"],
    }
    assert may == {"goalrank-promoter": rule}


def test_who_may_start_a_run_as_the_night(objects: list[Object]) -> None:
    """Kubeflow Pipelines asks for `use` before it starts a run as an account."""
    use = {
        role["metadata"]["name"]: rule
        for role in of_kind(objects, "Role")
        for rule in role["rules"]
        if "serviceaccounts" in rule["resources"]
    }
    rule = {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["goalrank-night"], "verbs": ["use"]}
    assert use == {"goalrank-schedule": rule, "goalrank-scheduled": rule}


def test_rights_name_what_they_are_for(objects: list[Object]) -> None:
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], name_of(role)
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] == ["mlpipeline-minio-artifact"] and rule["verbs"] == ["get"]
    night = [one for one in of_kind(objects, "ServiceAccount") if one.get("automountServiceAccountToken") is not False]
    assert [one["metadata"]["name"] for one in night] == ["goalrank-night"]
    assert all(pod.spec["automountServiceAccountToken"] is False for pod in pods(objects))
