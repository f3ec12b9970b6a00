"""Taking entities out of the online store at once, outside of any night."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from components.feature_store import open_store, reaching_store, views_of
from components.materialize_features.online import have_servers_read_anew, write_empty

if TYPE_CHECKING:
    from feast import FeatureStore


def erase_online(feast_uri: str, user_id: int) -> None:
    """What the online store knows of a user: nothing, from now on.

    Any store is first told empty rows, which readers take for an unknown user. In SQLite the rows themselves go too,
    their bytes overwritten, the write-ahead log included. Servers that kept the user's row are told to read it anew,
    which they do within seconds (components/serve_model/feature_rows.py).

    Raises:
        TryAgain: the store does not open, or is away.
    """
    store = open_store(feast_uri)
    views = views_of("user_id")
    with reaching_store():
        for view in views:
            write_empty(store, view, [user_id])
        if store.config.online_store.type == "sqlite":
            _delete(store, user_id, [view.name for view in views])
    have_servers_read_anew(feast_uri)


def _delete(store: FeatureStore, user_id: int, views: list[str]) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = serialize_entity_key(
        EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=user_id)]),
        entity_key_serialization_version=store.config.entity_key_serialization_version,
    )
    with closing(sqlite3.connect(store.config.online_store.path, timeout=20)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        with connection:
            for view in views:
                connection.execute(f'DELETE FROM "{store.project}_{view}" WHERE entity_key = ?', (key,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
