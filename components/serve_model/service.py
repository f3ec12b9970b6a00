"""The ranking service without HTTP: requests in, answers out, journalled and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.serve_model.batching import Batches, Ticket
from components.serve_model.bodies import RankBody
from components.serve_model.champion import Champion
from components.serve_model.hot_swap import HotSwap
from components.serve_model.metrics import Metrics
from components.serve_model.ranking import Asked, Ranked, Ranking
from components.serve_model.served_log import RepeatedRequestError, ServedLog, new_request_id


@dataclass(frozen=True, slots=True)
class Answer:
    """A list and the id under which feedback on it is taken."""

    request_id: str
    ranked: Ranked


class Service:
    """Everything that lives as long as the server."""

    def __init__(self, ranking: Ranking, log: ServedLog, metrics: Metrics, swap: HotSwap | None = None) -> None:
        """`swap` follows the registry; without it the champion stays."""
        self.ranking, self.log, self.metrics = ranking, log, metrics
        self._swap = swap
        self._batches = Batches(self._answer)
        metrics.serving(ranking.models)
        metrics.exploration.set(ranking.exploration)
        metrics.depth.set_function(lambda: self._batches.depth)
        metrics.follow("unlogged_requests", "Answers not journalled", "reason", lambda: {"not_written": log.unlogged})
        metrics.follow("feature_misses", "No features in the store", "entity", lambda: dict(ranking.misses))
        metrics.follow("feature_rows_read", "Read from the online store", "entity", ranking.features.counts)
        metrics.follow(
            "answered_alone", "Requests taken out of their batch", "why", lambda: {"close_call": ranking.answered_alone}
        )

    @property
    def ready(self) -> bool:
        """Whether requests are being answered."""
        return self._batches.alive

    def start(self) -> None:
        """Begin answering, journalling and following the registry."""
        self.log.start()
        self._batches.start()
        if self._swap is not None:
            self._swap.start()

    def close(self) -> None:
        """Answer what waits, then write out the log."""
        if self._swap is not None:
            self._swap.close()
        self._batches.close()
        self.ranking.features.close()
        self.log.close()

    async def rank(self, bodies: Sequence[RankBody]) -> list[Answer | RepeatedRequestError]:
        """Answers of the requests of one body, each by the model its user has, all of one moment.

        Raises:
            OverloadedError: too many requests wait.
        """
        models = self.ranking.models
        return await self._batches.ask([Asked(body, models.for_user(body.user_id)) for body in bodies])

    async def probe(self, bodies: Sequence[RankBody], champion: Champion) -> list[Answer | RepeatedRequestError]:
        """Answers of one version, whoever asks: nothing explored, nothing logged.

        Raises:
            OverloadedError: too many requests wait.
        """
        return await self._batches.ask([Asked(body, champion, may_explore=False) for body in bodies], record=False)

    def _answer(self, tickets: Sequence[Ticket]) -> None:
        """The work of a batch: rank, write the journal once, then let the answers leave."""
        asked = [one for ticket in tickets for one in ticket.asked]
        champion = self.ranking.champion.version.version
        ranked = self.ranking.rank_all(asked)
        kept = [ticket.record for ticket in tickets for _ in ticket.asked]
        pairs = [(one.body, answer) for one, answer, keep in zip(asked, ranked, kept, strict=True) if keep]
        recorded = iter(self.log.record_all(pairs))
        answers: list[Answer | RepeatedRequestError] = []
        for answer, keep in zip(ranked, kept, strict=True):
            request_id = next(recorded) if keep else new_request_id()
            if isinstance(request_id, RepeatedRequestError):
                self.metrics.repeated.inc()
                answers.append(request_id)
            else:
                answers.append(Answer(request_id, answer))
        self.metrics.ranked(asked, ranked, champion)
        first = 0
        for ticket in tickets:
            ticket.answers = answers[first : first + len(ticket.asked)]
            first += len(ticket.asked)
