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

    async def rank(self, bodies: Sequence[RankBody], together: bool = False) -> list[Answer | RepeatedRequestError]:
        """Answers of the requests of one body, each by the model its user has, all of one moment.

        `together`: all of them or none; a request id used before then refuses them all.

        Raises:
            OverloadedError: too many requests wait.
        """
        models = self.ranking.models
        asked = [Asked(body, models.for_user(body.user_id)) for body in bodies]
        return await self._batches.ask(asked, together=together)

    async def probe(self, bodies: Sequence[RankBody], champion: Champion) -> list[Answer | RepeatedRequestError]:
        """Answers of one version, whoever asks: nothing explored, nothing logged.

        Raises:
            OverloadedError: too many requests wait.
        """
        return await self._batches.ask([Asked(body, champion, may_explore=False) for body in bodies], record=False)

    def _answer(self, tickets: Sequence[Ticket]) -> None:
        """The work of a batch: rank, write the journal once, then let the answers leave."""
        champion = self.ranking.champion.version.version
        for ticket in tickets:
            ticket.answers = self._claimed(ticket)
        places = [(ticket, at) for ticket in tickets for at, refused in enumerate(ticket.answers) if refused is None]
        if not places:
            return
        asked = [ticket.asked[at] for ticket, at in places]
        try:
            ranked = self.ranking.rank_all(asked)
            pairs = zip(places, asked, ranked, strict=True)
            names = iter(self.log.record_all([(one.body, list_) for (ticket, _), one, list_ in pairs if ticket.record]))
        except BaseException:  # nobody gets an answer, so nobody's id was used
            self.log.give_back([one.body for (ticket, _), one in zip(places, asked, strict=True) if ticket.record])
            raise
        for (ticket, at), list_ in zip(places, ranked, strict=True):
            ticket.answers[at] = Answer(next(names) if ticket.record else new_request_id(), list_)
        self.metrics.ranked(asked, ranked, champion)

    def _claimed(self, ticket: Ticket) -> list[RepeatedRequestError | None]:
        """Why requests of the ticket are not answered; None for those that are to be."""
        if not ticket.record:
            return [None] * len(ticket.asked)
        refused = self.log.claim([one.body for one in ticket.asked], ticket.together)
        self.metrics.repeated.inc(sum(error is not None for error in refused))
        return refused
