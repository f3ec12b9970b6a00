"""The Grafana dashboard is JSON that asks for metrics the service exports."""

from __future__ import annotations

import json

from tests.cluster.exported import metrics, read_by
from tests.cluster.rendered import Object, of_kind


def dashboard(objects: list[Object]) -> dict:
    (config,) = (one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "goalrank-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = config["data"].values()
    return json.loads(text)


def test_every_query_asks_for_what_is_exported(objects: list[Object]) -> None:
    asked = set()
    for panel in dashboard(objects)["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            read = read_by(target["expr"])
            assert read and read <= metrics(), (panel["title"], target["expr"])
            assert '{namespace="$namespace"' in target["expr"], panel["title"]
            asked |= read
    # Nothing that the service tells is told to nobody; when something began is not worth a panel.
    families = {
        name.removesuffix(end) for name in metrics() for end in ("_bucket", "_sum", "_count") if name.endswith(end)
    }
    unseen = {name for name in metrics() - asked if not any(name.startswith(family) for family in families)}
    assert unseen == set()
    assert all(any(name.startswith(family) for name in asked) for family in families)


def test_variables_and_places(objects: list[Object]) -> None:
    found = dashboard(objects)
    assert {variable["name"] for variable in found["templating"]["list"]} == {"source", "namespace"}
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
