"""Reading feature_repo/, checking that it supplies what the models read, and telling Feast (`feast apply`)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.feature_store import SERVICE, reaching_store
from goalrank import schema
from goalrank.errors import DataRefused, UsageError

if TYPE_CHECKING:
    from feast import FeatureStore

EXPECTED = {view.name: {field.name for field in view.features} for view in schema.FEATURE_VIEWS.values()}
"""Features the models read, by view."""


def load_definitions(repository: str | Path, offline_root: str | Path) -> list[Any]:
    """The Feast objects that the .py files of a feature repository define, as `feast apply` would collect them.

    Args:
        repository: folder of the definitions.
        offline_root: folder with one folder of Parquet files per view.

    Raises:
        UsageError: there is no such folder or it defines nothing.
    """
    from feast import Entity, FeatureService, FeatureView

    files = sorted(Path(repository).glob("*.py"))
    if not files:
        raise UsageError(f"no definitions found in {repository}, expected a Feast repository such as feature_repo/")
    found: dict[int, Any] = {}
    before = os.environ.get("GOALRANK_OFFLINE_ROOT")
    os.environ["GOALRANK_OFFLINE_ROOT"] = str(offline_root)
    try:
        for file in files:
            # Executed anew each time: paths of sources are read from the environment while a file is imported.
            name = f"goalrank_feature_repo_{file.stem}"
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None and spec.loader is not None  # for type checkers: the file exists
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:  # whatever a definition file does wrong, the night must name it
                raise DataRefused(
                    f"{file} cannot be read ({type(error).__name__}: {error}); expected definitions of entities, the "
                    f"views {', '.join(schema.FEATURE_VIEWS)} and the service: restore what it names"
                ) from error
            objects = [
                value for value in vars(module).values() if isinstance(value, (Entity, FeatureView, FeatureService))
            ]
            found.update({id(value): value for value in objects})
    finally:
        if before is None:
            del os.environ["GOALRANK_OFFLINE_ROOT"]
        else:
            os.environ["GOALRANK_OFFLINE_ROOT"] = before
    return list(found.values())


def check_supply(objects: list[Any]) -> None:
    """Hold the service the models read against schema.FEATURE_VIEWS.

    Raises:
        DataRefused: the service, a view or a feature is missing; the message names each.
    """
    from feast import FeatureService, FeatureView

    defined = {value.name for value in objects if isinstance(value, FeatureView)}
    services = {value.name: value for value in objects if isinstance(value, FeatureService)}
    if SERVICE not in services:
        raise DataRefused(
            f"feature service {SERVICE!r} is not defined, found {sorted(services) or 'none'}; "
            "restore it in feature_repo/"
        )
    supplied = {
        projection.name: {feature.name for feature in projection.features}
        for projection in services[SERVICE].feature_view_projections
    }
    lacking = []
    for view, features in EXPECTED.items():
        if view not in defined or view not in supplied:
            lacking.append(f"view {view}")
        else:
            lacking += [f"feature {view}:{feature}" for feature in sorted(features - supplied[view])]
    if lacking:
        raise DataRefused(
            f"feature service {SERVICE!r} does not supply {', '.join(lacking)}; the models read "
            f"{sum(map(len, EXPECTED.values()))} features of {', '.join(EXPECTED)}; restore them in feature_repo/"
        )


def apply(store: FeatureStore, objects: list[Any]) -> None:
    """`feast apply`: the registry gets the definitions, the online store their tables; then what it got is checked.

    Raises:
        DataRefused: the registry does not supply every feature afterwards.
        TryAgain: the online store is away.
    """
    with reaching_store():
        store.apply(objects)
    check_supply([*store.list_feature_views(), *store.list_feature_services()])
