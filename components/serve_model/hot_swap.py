"""Following the registry while serving: a new champion is loaded aside, verified, tried, and then takes over at once.

A version that cannot be downloaded, verified or tried is not swapped in: the old one goes on answering, the metrics
and the log say so, and it is tried again a minute later. The registry being away changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from components import registry
from components.serve_model.champion import Champion, Models, load_version
from components.serve_model.metrics import Metrics
from components.serve_model.ranking import Ranking
from goalrank import naming, schema
from goalrank.dataset import batch_from_rows
from goalrank.errors import GoalRankError, ModelRefused, TryAgain

if TYPE_CHECKING:
    from mlflow import MlflowClient

RETRY_SECONDS = 60.0
"""How long a version that was refused is left alone, unless the alias moves."""
TRIED = ((1, 1), (1, schema.LIST_LENGTH + 1), (4, 50))
"""(requests, candidates) of the batches a version has to answer before it may serve."""

_log = logging.getLogger("goalrank.serve")


class HotSwap:
    """Watches the aliases champion and previous, and keeps `ranking.models` in step with them."""

    def __init__(
        self,
        tracking_uri: str,
        ranking: Ranking,
        metrics: Metrics,
        poll_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ranking` answers with the champion already; `poll_seconds` is how often the aliases are looked at."""
        self._tracking_uri, self._ranking, self._metrics = tracking_uri, ranking, metrics
        self._poll_seconds, self._clock = poll_seconds, clock
        self._client: MlflowClient | None = None
        self._refused: dict[str, float] = {}
        self._away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="hot-swap", daemon=True)

    def start(self) -> None:
        """Watch in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; a version that is being loaded is not swapped in."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def look(self) -> None:
        """Look at the aliases once, and swap in what they name now.

        Raises:
            TryAgain: the registry is away.
        """
        if not registry.exists(self._tracking_uri):
            raise TryAgain(f"the registry {naming.without_password(self._tracking_uri)} is gone")
        if self._client is None:
            self._client = registry.connect(self._tracking_uri)
        serving = self._ranking.models
        with registry.reaching(self._tracking_uri):
            # One question a look; without the model this is not the registry we began with, and nothing follows.
            found = self._client.search_registered_models(f"name = '{registry.RANKER}'", max_results=1)
            if not found:
                raise TryAgain(f"the registry knows no {registry.RANKER} any more; restore it")
            registered = [one.creation_timestamp for one in found[0].latest_versions]
            self._metrics.newest.set(max(registered, default=0) / 1000)
            aliases = {alias: str(version) for alias, version in found[0].aliases.items()}
            champion = self._named(self._client, registry.CHAMPION, aliases, serving) or serving.champion
            previous = None
            if serving.holdback > 0.0:
                previous = self._named(self._client, registry.PREVIOUS, aliases, serving)
        if previous is not None and previous.version == champion.version:
            previous = None
        withdrawn = registry.CHAMPION not in aliases
        wanted = Models(champion, previous, serving.holdback, withdrawn)
        if wanted != serving and not self._stop.is_set():
            # One assignment: requests that are under way keep the model they were given.
            self._ranking.models = wanted
            self._metrics.serving(wanted)
            if champion is not serving.champion:
                self._metrics.swaps.labels("swapped").inc()
                old, new = serving.champion.version, champion.version
                _log.warning("%s version %s took over from version %s", new.name, new.version, old.version)

    def _named(self, client: MlflowClient, alias: str, aliases: dict[str, str], serving: Models) -> Champion | None:
        """The model an alias names, loaded if need be; None where there is none that can serve."""
        number = aliases.get(alias)
        if number is None:
            return None
        loaded = serving.by_version(number)  # a version's weights never change
        if loaded is not None:
            return loaded
        if self._refused.get(number, 0.0) > self._clock():
            return None
        try:
            one = load_version(client, registry.identity(client.get_model_version(registry.RANKER, number)))
            try_out(one)
        except TryAgain:
            raise
        except GoalRankError as error:
            self._refused[number] = self._clock() + RETRY_SECONDS
            self._metrics.swaps.labels("refused").inc()
            _log.error("%s version %s (%s) is not swapped in: %s", registry.RANKER, number, alias, error)
            return None
        self._refused.pop(number, None)
        return one

    def _work(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.look()
                if self._away:
                    _log.warning("the registry answers again")
                self._away = False
            except Exception as error:  # whatever it is, the models that serve go on serving
                self._client = None
                self._metrics.registry_away.inc()
                if not self._away:
                    _log.warning("the registry cannot be followed, serving goes on: %s", error)
                self._away = True


def try_out(champion: Champion) -> None:
    """Let a version answer requests nobody asked, of users and items nobody knows.

    Raises:
        ModelRefused: it does not give lists of distinct candidates.
    """
    version = champion.version
    for requests, candidates in TRIED:
        users, items = _nobody("user_id", requests), _nobody("item_id", requests * candidates)
        rows = [list(range(first * candidates, (first + 1) * candidates)) for first in range(requests)]
        scores = [[float(place) for place in range(candidates)] for _ in range(requests)]
        length = min(schema.LIST_LENGTH, candidates)
        try:
            with torch.inference_mode():
                batch = batch_from_rows(users, items, list(range(requests)), rows, scores)
                encoded = champion.model.encode(batch)
                lists_BL = champion.model.greedy(encoded, length)
                finite = bool(torch.isfinite(champion.model.log_prob(encoded, lists_BL.unsqueeze(1))[0]).all())
        except Exception as error:  # a model may fail in any way; none of them may serve
            raise ModelRefused(
                f"{version.name} version {version.version} fails on a request: {type(error).__name__}: {error}"
            ) from error
        valid = all(len(set(one)) == length and 0 <= min(one) <= max(one) < candidates for one in lists_BL.tolist())
        if not (finite and valid):
            raise ModelRefused(
                f"{version.name} version {version.version} gives {lists_BL.tolist()} for {candidates} candidates, "
                f"expected lists of {length} distinct ones and finite probabilities; register the night again"
            )


def _nobody(entity: str, count: int) -> pa.Table:
    """Feature rows of entities that nothing is known of."""
    wanted = schema.training_rows_schema(entity)
    columns = [pa.array(range(1, count + 1), pa.int64()), *(pa.nulls(count, field.type) for field in list(wanted)[1:])]
    return pa.Table.from_arrays(columns, schema=wanted)
