"""The same ranker behind MLflow's own model server, reading its features from the same online store.

MLflow copies this file beside the model and runs it on loading (models from code). Input, one row a request: user_id,
item_ids, scores. Output: the list of item ids of each request. `keep_seconds` 0 reads the store by Feast's SDK for
every request, the plain way; above 0 it uses the ranking service's cache of feature rows.
"""

import threading
from pathlib import Path

import mlflow
import torch

from components.feature_store import OnlineReader
from components.serve_model.feature_rows import FeatureRows
from goalrank.checkpoint import load_model
from goalrank.dataset import assemble, batch_from_rows
from goalrank.schema import LIST_LENGTH


class StoreRanker(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """The model and its features."""

    def load_context(self, context):  # type: ignore[no-untyped-def]
        torch.set_num_threads(1)
        self.model = load_model(str(Path(context.artifacts["model"])))
        self.reader = OnlineReader(context.model_config["feast_uri"])
        keep = context.model_config["keep_seconds"]
        self.rows = FeatureRows(self.reader, keep, read_seconds=60.0) if keep else None
        self.one_at_a_time = threading.Lock()  # Feast's SQLite store has one connection for all threads

    # No type hints: MLflow would act on them.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        lists = []
        for user, ids, scores in zip(
            model_input["user_id"], model_input["item_ids"], model_input["scores"], strict=True
        ):
            ids, scores = [int(item) for item in ids], [float(score) for score in scores]
            with self.one_at_a_time:
                if self.rows is None:
                    users = self.reader.rows("user_id", [int(user)])
                    items = self.reader.rows("item_id", ids)
                    batch = batch_from_rows(users, items, [0], [list(range(len(ids)))], [scores])
                else:
                    got = self.rows.gather([int(user)], [ids])
                    import numpy as np

                    batch = assemble(
                        got.users, got.items, got.user_rows_B, got.rows_BN, np.array([scores]), got.mask_BN
                    )
            with torch.inference_mode():
                chosen = self.model.greedy(self.model.encode(batch), min(LIST_LENGTH, len(ids)))[0].tolist()
            lists.append([ids[index] for index in chosen])
        return lists


mlflow.models.set_model(StoreRanker())
