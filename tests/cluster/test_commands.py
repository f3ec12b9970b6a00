"""What the pods run exists: commands and their flags, the paths that probes and Prometheus ask."""

from __future__ import annotations

import inspect

import typer

from components.serve_model.app import create_app
from components.watch_champion.main import run as watch_champion
from console.main import app
from console.settings import Settings
from tests.cluster.exported import idle_service
from tests.cluster.rendered import Object, of_kind, pods

SERVER = "InferenceService/goalrank-ranker"


def container(objects: list[Object], owner: str) -> dict:
    """The one container of that owner's pod."""
    (pod,) = (pod for pod in pods(objects) if pod.owner == owner)
    (one,) = pod.containers
    return one


def flags(args: list[str]) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in args)


def test_the_server_is_started_as_the_command_line_knows_it(objects: list[Object]) -> None:
    one = container(objects, SERVER)
    group = typer.main.get_command(app)
    assert one["command"] == ["goalrank", "serve"]
    known = {option for parameter in group.commands["serve"].params for option in parameter.opts}
    given = flags(one["args"])
    assert {f"--{name}" for name in given} <= known
    (port,) = one["ports"]
    assert int(given["port"]) == port["containerPort"] and given["host"] == "0.0.0.0"


def test_the_watch_gives_what_the_step_needs(objects: list[Object]) -> None:
    one = container(objects, "CronJob/watch-champion")
    parameters = inspect.signature(watch_champion).parameters
    given = {name.replace("-", "_"): value for name, value in flags(one["args"]).items()}
    needed = {name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    assert one["command"] == ["python", "-m", watch_champion.__module__]
    assert needed <= given.keys() <= parameters.keys()
    variables = {value.removeprefix("$(").partition(")")[0] for value in given.values() if value.startswith("$(")}
    assert variables <= {f"GOALRANK_{name.upper()}" for name in Settings.model_fields}
    (told,) = (
        each["data"] for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"] == "goalrank-settings"
    )
    ours = parameters.keys() & Settings.model_fields.keys()
    assert {"holdback", "watch_days"} < ours <= given.keys()
    assert {name: given[name] for name in ours} == {name: f"$(GOALRANK_{name.upper()})" for name in ours}
    for name in ("holdback", "watch_days"):
        assert float(told[f"GOALRANK_{name.upper()}"]) == Settings.model_fields[name].default, "as without a cluster"


def test_the_upkeep_pod_is_there_when_asked_for_and_has_what_a_server_has(objects: list[Object]) -> None:
    (deployment,) = (one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == "goalrank-upkeep")
    assert deployment["spec"]["replicas"] == 0 and deployment["spec"]["strategy"] == {"type": "Recreate"}
    one, server = (container(objects, owner) for owner in ("Deployment/goalrank-upkeep", SERVER))
    for same in ("image", "envFrom", "volumeMounts", "securityContext"):
        assert one[same] == server[same]
    (policy,) = (one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == "upkeep")
    (servers,) = (one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == "ranker")
    assert policy["spec"]["egress"] == servers["spec"]["egress"] and policy["spec"]["policyTypes"] == ["Egress"]


def test_paths_that_are_asked_are_answered(objects: list[Object]) -> None:
    routes = {route.path for route in create_app(idle_service()).routes}
    one = container(objects, SERVER)
    asked = {one[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    asked |= {point["path"] for monitor in of_kind(objects, "ServiceMonitor") for point in monitor["spec"]["endpoints"]}
    assert len(asked) == 3 and asked <= routes


def test_probes_ask_ports_that_are_there(objects: list[Object]) -> None:
    for pod in pods(objects):
        for one in pod.containers:
            for probe in ("readinessProbe", "livenessProbe"):
                if "httpGet" in one.get(probe, {}):
                    assert one[probe]["httpGet"]["port"] in pod.ports, (pod.owner, probe)
