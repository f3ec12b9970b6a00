"""Every object of every overlay is what its kind's schema allows; what no schema knows fails."""

from __future__ import annotations

import copy

import pytest

from tests.cluster import schemas
from tests.cluster.rendered import Object, name_of


@pytest.fixture(scope="module")
def crds() -> None:
    schemas.require_crds()


def test_core_kinds(objects: list[Object]) -> None:
    core = [one for one in objects if schemas.is_core(one)]
    assert len(core) > 20
    assert {name_of(one): found for one in core if (found := schemas.problems(one))} == {}


def test_custom_kinds(objects: list[Object], crds: None) -> None:
    custom = [one for one in objects if not schemas.is_core(one)]
    assert {one["kind"] for one in custom} == {"InferenceService", "PrometheusRule", "ServiceMonitor"}
    assert {name_of(one): found for one in custom if (found := schemas.problems(one))} == {}


def test_one_name_once_and_one_namespace(objects: list[Object], environment: str) -> None:
    names = [name_of(one) for one in objects]
    assert len(names) == len(set(names))
    assert f"Namespace/goalrank-{environment}" in names
    elsewhere = [one for one in objects if one["kind"] != "Namespace"]
    assert {one["metadata"].get("namespace") for one in elsewhere} == {f"goalrank-{environment}"}


def core_object() -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "x", "image": "x:1", "ports": [{"containerPort": 80}]}]},
            },
        },
    }


def custom_object() -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "x"},
        "spec": {"predictor": {"containers": [{"name": "x", "image": "x:1", "ports": [{"containerPort": 80}]}]}},
    }


def container_of(one: Object) -> Object:
    spec = one["spec"]
    return (spec["predictor"] if "predictor" in spec else spec["template"]["spec"])["containers"][0]


SPOILS = {
    "an unknown field of a container": lambda one: container_of(one).update(imagePulPolicy="Always"),
    "a port that is a text": lambda one: container_of(one).update(ports=[{"containerPort": "eighty"}]),
    "an unknown field of the spec": lambda one: one["spec"].update(canaryTraffic=10),
    "an unknown kind": lambda one: one.update(kind="Deploymemt"),
    "an unknown version": lambda one: one.update(apiVersion=f"{one['apiVersion'].partition('/')[0]}/v9"),
    "an unknown group": lambda one: one.update(apiVersion="example.org/v1"),
}


@pytest.mark.parametrize("made", [core_object, custom_object])
@pytest.mark.parametrize("spoil", SPOILS, ids=str)
def test_the_check_fails_where_it_must(made, spoil: str, crds: None) -> None:
    good = made()
    assert schemas.problems(good) == []
    bad = copy.deepcopy(good)
    SPOILS[spoil](bad)
    assert schemas.problems(bad) != []


def test_a_word_no_field_knows_is_told() -> None:
    one = core_object()
    one["spec"]["template"]["spec"]["restartPolicy"] = "Newer"
    assert schemas.problems(one) == ["restartPolicy 'Newer' is none of Always, Never, OnFailure"]


def test_closing_a_schema_leaves_what_is_open() -> None:
    free = {"type": "object", "properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": True}
    map_ = {"type": "object", "additionalProperties": {"type": "string"}}
    inner = {"type": "object", "properties": {"properties": {"type": "string"}}}
    closed = schemas.closed({"type": "object", "properties": {"free": free, "map": map_, "properties": inner}})
    assert closed["additionalProperties"] is False
    assert closed["properties"]["free"] == free and closed["properties"]["map"] == map_
    assert closed["properties"]["properties"]["additionalProperties"] is False
