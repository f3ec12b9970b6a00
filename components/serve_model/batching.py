"""Requests that arrive while others are being answered wait together and are answered together.

One thread does the answering. It takes whatever waits as soon as it is free, so an idle server answers at once and a
busy one in batches: nobody waits for a batch to fill. What waits is bounded; beyond that the service says so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from components.serve_model.ranking import Asked
from goalrank.errors import GoalRankError

BATCH_REQUESTS = 32
BATCH_CELLS = 16_384
"""Requests times the widest one's candidates: what a batch holds at most, padding included."""
WAITING_REQUESTS = 2048

_log = logging.getLogger("goalrank.serve")


class OverloadedError(GoalRankError):
    """More requests wait than can be answered in good time (HTTP 503)."""


@dataclass(slots=True)
class Ticket:
    """Requests of one body: answered in one go, by the models that were serving when it came."""

    asked: list[Asked]
    record: bool
    together: bool
    """All of them are to be answered, or none."""
    future: asyncio.Future[list[Any]]
    answers: list[Any] = field(default_factory=list)
    """Filled by the answering thread, one entry a request."""

    @property
    def widest(self) -> int:
        """Most candidates of a request in it."""
        return max(len(one.body.candidates) for one in self.asked)


class Batches:
    """The queue and its thread."""

    def __init__(self, work: Callable[[Sequence[Ticket]], None], waiting: int = WAITING_REQUESTS) -> None:
        """`work` fills `answers` of each ticket; `waiting` is how many requests may wait."""
        self._work, self._waiting = work, waiting
        self._queue: SimpleQueue[Ticket | None] = SimpleQueue()
        self._next: Ticket | None = None
        self._put = self._taken = 0  # each written by one thread only
        self._thread = threading.Thread(target=self._serve, name="answers", daemon=True)

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self._put - self._taken

    @property
    def alive(self) -> bool:
        """Whether anybody answers."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin answering."""
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then stop."""
        self._queue.put(None)
        self._thread.join()

    async def ask(self, asked: list[Asked], record: bool = True, together: bool = False) -> list[Any]:
        """Answers to the requests of one body.

        Raises:
            OverloadedError: too many wait already.
        """
        if self.depth + len(asked) > self._waiting and self.depth:
            raise OverloadedError(f"{self.depth} requests wait already; try again in a second, or start more servers")
        ticket = Ticket(asked, record, together, asyncio.get_running_loop().create_future())
        self._put += len(asked)
        self._queue.put(ticket)
        return await ticket.future

    def _serve(self) -> None:
        while (tickets := self._take()) is not None:
            try:
                self._work(tickets)
                failure = None
            except Exception as error:  # a bug of ours: this batch fails, the next one is answered
                _log.exception("a batch of %d could not be answered", len(tickets))
                failure = error
            loops = {ticket.future.get_loop() for ticket in tickets}
            for loop in loops:
                mine = [ticket for ticket in tickets if ticket.future.get_loop() is loop]
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_deliver, mine, failure)

    def _take(self) -> list[Ticket] | None:
        """The next batch, None at the end."""
        first = self._next or self._queue.get()
        self._next = None
        if first is None:
            return None
        batch, requests, widest = [first], len(first.asked), first.widest
        while requests < BATCH_REQUESTS:
            try:
                ticket = self._queue.get_nowait()
            except Empty:
                break
            if ticket is None:
                self._queue.put(None)  # close() was called: once this batch is answered
                break
            requests, widest = requests + len(ticket.asked), max(widest, ticket.widest)
            if requests > BATCH_REQUESTS or requests * widest > BATCH_CELLS:
                self._next = ticket
                break
            batch.append(ticket)
        self._taken += sum(len(ticket.asked) for ticket in batch)
        return batch


def _deliver(tickets: Sequence[Ticket], failure: Exception | None) -> None:
    for ticket in tickets:
        if ticket.future.done():  # whoever asked has gone away
            continue
        if failure is not None:
            ticket.future.set_exception(failure)
        else:
            ticket.future.set_result(ticket.answers)
