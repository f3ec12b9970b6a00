"""The feature store as its readers see it: open it, read rows online (serving) and as of a time (training).

Feast's traps are dealt with here, once (docs/architecture.md): the file offline store drops entity rows that share key
and time, drops a row whose every feature lies in its future, and turns integers with gaps into floats.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import string
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

import goalrank_platform
from components.dask_tokens import cheap_list_tokens
from components.spark import DEFAULT_MASTER, spark_session
from components.spark_memory import DEFAULT_MEMORY
from goalrank import schema
from goalrank.errors import DataRefused, TryAgain, UsageError

if TYPE_CHECKING:
    from feast import FeatureStore

    from components.step import Step

SERVICE = "ranker"
"""The Feast feature service that lists every view the models read."""

ENTITIES = ("user_id", "item_id")


def views_of(entity: str) -> tuple[schema.FeatureView, ...]:
    """The views about `entity`, in the order of schema.training_rows_schema."""
    if entity not in ENTITIES:
        raise UsageError(f"entity {entity!r} found, expected one of {', '.join(ENTITIES)}")
    return schema.USER_VIEWS if entity == "user_id" else schema.ITEM_VIEWS


def read_config(feast_uri: str, kind: str = "", repository: str = "") -> dict[str, Any]:
    """feature_store.<kind>.yaml with the environment's values filled in; `kind` is local or cluster.

    Raises:
        UsageError: no such file, or a setting it names is missing from the environment.
    """
    import yaml

    kind = kind or os.environ.get("GOALRANK_FEATURE_STORE", "local")
    folder = Path(repository) if repository else goalrank_platform.root() / "feature_repo"
    path = folder / f"feature_store.{kind}.yaml"
    if not path.is_file():
        raise UsageError(f"no {path.name} in {folder}; expected GOALRANK_FEATURE_STORE to be local or cluster")
    values = {
        "GOALRANK_SPARK_MASTER": DEFAULT_MASTER,
        "GOALRANK_SPARK_MEMORY": DEFAULT_MEMORY,
        **os.environ,
        "GOALRANK_FEAST_ROOT": str(Path(feast_uri).resolve()) if "://" not in feast_uri else feast_uri,
    }

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        return string.Template(part).substitute(values) if isinstance(part, str) else part

    try:
        # Parsed first: a password may hold what means something to YAML.
        return filled(yaml.safe_load(path.read_text(encoding="utf-8")))
    except KeyError as missing:
        raise UsageError(f"{path.name} needs the environment variable {missing.args[0]}; set it") from None


def create_store(feast_uri: str, kind: str = "", repository: str = "") -> FeatureStore:
    """The store, new or not; only materialize_features calls this, everybody else :func:`open_store`.

    Raises:
        UsageError: as :func:`read_config`.
        TryAgain: the registry's database is away.
    """
    from feast import FeatureStore, RepoConfig

    config = RepoConfig(**read_config(feast_uri, kind, repository))
    with reaching_store():
        store = FeatureStore(config=config)
        _ = store.registry  # made when first asked for
    return store


def open_store(feast_uri: str, kind: str = "") -> FeatureStore:
    """Open a store that a night has filled, for reading.

    The registry is read once. A materialisation may be rewriting it at this moment: then it is read again, and a view
    that is being written to counts as servable (it keeps its last values until the new ones are committed).

    Raises:
        TryAgain: no night has filled it yet, or it does not answer.
    """
    last: Exception | None = None
    for pause in (0.1, 0.3, 1.0, 0.0):
        try:
            store = create_store(feast_uri, kind)
            store.registry.serve_features_while_materializing = True
            store.get_feature_service(SERVICE)
            return store
        except UsageError:
            raise
        except Exception as error:  # every online or registry backend has its own exceptions
            last = error
            time.sleep(pause)
    raise TryAgain(
        f"the feature store at {feast_uri} does not open ({type(last).__name__}: {last}); "
        "expected one filled by a night; run `goalrank nightly`, or wait for the store to be back"
    ) from last


@contextmanager
def offline_engine(store: FeatureStore, step: Step, reads: int = 0) -> Iterator[None]:
    """What the offline store computes with while inside: nothing for files; for Spark a session of ours, which Feast
    finds and uses instead of making one. What Feast stages meanwhile is removed afterwards.

    `reads`: bytes that it will read, as spark_session takes them; few where it is not said.

    Raises:
        TryAgain: as components.spark.spark_session.
    """
    offline = store.config.offline_store
    if offline.type != "spark":
        yield
        return
    try:
        conf = offline.spark_conf
        with spark_session(step, conf["spark.master"], conf["spark.driver.memory"], reads):
            yield
    finally:
        shutil.rmtree(offline.staging_location, ignore_errors=True)


@contextmanager
def reaching_store() -> Iterator[None]:
    """Turn "the online store or the registry is away" into TryAgain while writing to them; other errors pass.

    Raises:
        TryAgain: SQLite, Redis or PostgreSQL cannot be opened, reached or written to.
    """
    try:
        yield
    except Exception as error:
        online = isinstance(error, (sqlite3.Error, ConnectionError, TimeoutError))
        if online or type(error).__module__.partition(".")[0] == "redis":
            raise TryAgain(
                f"the online store is away ({type(error).__name__}: {error}); start or free it and run again"
            ) from error
        if type(error).__name__ in ("OperationalError", "InterfaceError"):  # SQLAlchemy's, and its drivers' own
            said = str(error).strip().partition("\n")[0]
            raise TryAgain(
                f"the feature store's registry is away ({said}); start its database or mend GOALRANK_FEAST_REGISTRY, "
                "then run again"
            ) from error
        raise


def online_rows(store: FeatureStore, entity: str, keys: Sequence[int]) -> pa.Table:
    """What the online store holds now, one row a key, in the keys' order.

    Args:
        store: from :func:`open_store`.
        entity: 'user_id' or 'item_id'.
        keys: ids; repeated ones are answered repeatedly.

    Returns:
        Columns of schema.training_rows_schema(entity); `as_of` is null. A key nobody knows has null features.

    Raises:
        TryAgain: the online store is away.
    """
    wanted = schema.training_rows_schema(entity)
    views = views_of(entity)
    if len(keys) == 0:
        return wanted.empty_table()
    features = [f"{view.name}:{field.name}" for view in views for field in view.features]
    try:
        found = store.get_online_features(features=features, entity_rows=[{entity: int(key)} for key in keys]).to_dict()
    except Exception as error:  # each online store raises its own; all of them mean: no features now
        raise TryAgain(
            f"the online store does not answer ({type(error).__name__}: {error}); "
            "check that it runs and that a night has materialised into it"
        ) from error
    columns: list[pa.Array] = [pa.array([int(key) for key in keys], pa.int64()), pa.nulls(len(keys), schema.TIMESTAMP)]
    columns += [
        pa.array(found[field.name], field.type) for field in wanted if field.name in found and field.name != entity
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


class OnlineReader:
    """Reads rows online for as long as a server lives: through the store going away and coming back.

    An SQLite file that was deleted or replaced goes on answering whoever has it open, with what it held; so the file
    is looked at before each read. `stamp` changes when a night has brought new features online.
    """

    def __init__(self, feast_uri: str) -> None:
        """Open the store.

        Raises:
            TryAgain: as :func:`open_store`.
        """
        self._feast_uri = feast_uri
        self._store: FeatureStore | None = open_store(feast_uri)
        online = self._store.config.online_store
        self._database = Path(online.path) if online.type == "sqlite" else None
        self._opened = self._file()
        self._record: tuple[tuple[int, int], bool] | None = None
        """online.json by inode and time, and whether it says that a materialisation is whole."""

    def rows(self, entity: str, keys: Sequence[int]) -> pa.Table:
        """As :func:`online_rows`.

        Raises:
            TryAgain: the online store is away; the next call tries to open it again.
        """
        if self._database is not None:
            found = self._file()
            if found is None:
                self._store = None
                raise TryAgain(f"the online store {self._database} is gone; put it back, or run `goalrank nightly`")
            if found != self._opened:
                self._store, self._opened = None, found
        try:
            if self._store is None:
                self._store = open_store(self._feast_uri)
            return online_rows(self._store, entity, keys)
        except TryAgain:
            self._store = None
            raise

    def stamp(self) -> tuple[object, ...] | None:
        """Which materialisation is online: equal stamps, equal rows. None while one is being written, and after one
        that was cut short, until the next has ended: online.json then names no folder as the one that is online."""
        path = Path(self._feast_uri) / "online.json"
        try:
            found = os.stat(path)
            record = (found.st_ino, found.st_mtime_ns)
            if self._record is None or self._record[0] != record:  # read once, and looked at for every batch
                self._record = (record, "folder" in json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None
        return (*record, self._file()) if self._record[1] else None

    def _file(self) -> tuple[int, int] | None:
        if self._database is None:
            return None
        try:
            found = os.stat(self._database)
        except OSError:
            return None
        return (found.st_dev, found.st_ino)


def offline_rows(
    store: FeatureStore, entity: str, keys: Sequence[int], as_of: datetime | Sequence[datetime]
) -> pa.Table:
    """What the offline store knew of each key at a time (Feast's point-in-time join), in the keys' order.

    Rows whose event or creation lies after `as_of` do not count; one exactly at `as_of` does.

    Args:
        store: from :func:`open_store`.
        entity: 'user_id' or 'item_id'.
        keys: ids, repeats allowed.
        as_of: one UTC time for all keys or one a key.

    Returns:
        Columns of schema.training_rows_schema(entity); null features where Feast knew nothing.

    Raises:
        DataRefused: Feast's answer does not have the rows asked for.
    """
    wanted = schema.training_rows_schema(entity)
    times = [as_of] * len(keys) if isinstance(as_of, datetime) else list(as_of)
    if len(times) != len(keys):
        raise UsageError(f"{len(times)} times found for {len(keys)} keys, expected one each or one for all")
    if len(keys) == 0:
        return wanted.empty_table()
    asked = pa.table({entity: pa.array(keys, pa.int64()), "as_of": pa.array(times, schema.TIMESTAMP)})
    # The file offline store drops repeated (key, time) rows, so each is asked for once.
    unique = asked.group_by([entity, "as_of"], use_threads=False).aggregate([])
    unique = unique.sort_by([("as_of", "ascending"), (entity, "ascending")])
    answer = unique
    for view in views_of(entity):
        # One view at a time: a row that one view has only in the future is dropped from the others' answers too.
        answer = _joined(answer, _historical(store, view, unique), view)
    position = {pair: row for row, pair in enumerate(zip(*_pairs(unique, entity), strict=True))}
    order = [position[pair] for pair in zip(*_pairs(asked, entity), strict=True)]
    return answer.select(wanted.names).take(pa.array(order)).cast(wanted)


def _pairs(table: pa.Table, entity: str) -> tuple[list[int], list[int]]:
    return table[entity].to_pylist(), pc.cast(table["as_of"], pa.int64()).to_pylist()


def _historical(store: FeatureStore, view: schema.FeatureView, unique: pa.Table) -> pa.Table:
    """Feast's answer for one view: (entity, as_of, features), rows of unknown entities missing or null."""
    import pandas as pd

    frame = pd.DataFrame(
        {view.entity: unique[view.entity].to_numpy(), "event_timestamp": unique["as_of"].to_pandas()},
    )
    with cheap_list_tokens():
        answer = store.get_historical_features(
            entity_df=frame,
            features=[f"{view.name}:{field.name}" for field in view.features],
            filter_by_created_timestamp=True,
        ).to_df()
    columns = [
        pa.array(answer[view.entity], pa.int64(), from_pandas=True),
        pa.array(answer["event_timestamp"]).cast(schema.TIMESTAMP),
        # Integers that met a missing row come back as floats: whole ones, which a safe cast restores or refuses.
        *(pa.array(answer[field.name], from_pandas=True).cast(field.type) for field in view.features),
    ]
    return pa.Table.from_arrays(columns, names=[view.entity, "as_of", *(field.name for field in view.features)])


def _joined(left: pa.Table, right: pa.Table, view: schema.FeatureView) -> pa.Table:
    """`left` with the view's features beside it, by (entity, as_of)."""
    at = {pair: row for row, pair in enumerate(zip(*_pairs(right, view.entity), strict=True))}
    if len(at) != right.num_rows or right.num_rows > left.num_rows:
        raise DataRefused(
            f"{right.num_rows} rows with {len(at)} distinct keys came back from Feast for view {view.name}, "
            f"expected at most one for each of {left.num_rows}; check the view's Parquet files for repeated rows"
        )
    rows = pa.array([at.get(pair) for pair in zip(*_pairs(left, view.entity), strict=True)], pa.int64())
    for field in view.features:
        left = left.append_column(field, right[field.name].combine_chunks().take(rows))
    return left
