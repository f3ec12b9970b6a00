"""The queue between HTTP and the ranking: what waits together is answered together, and too much is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from components.serve_model.batching import BATCH_CELLS, BATCH_REQUESTS, Batches, OverloadedError, Ticket
from components.serve_model.bodies import parse_rank
from components.serve_model.champion import Champion
from components.serve_model.ranking import Asked
from goalrank.verdict import ModelVersion

NOBODY = Champion(None, ModelVersion(name="goalrank-ranker", version="1", weights_sha256="0" * 64))


def asked(number: int = 0, candidates: int = 2) -> Asked:
    offered = [{"item_id": item + 1, "score": float(number)} for item in range(candidates)]
    return Asked(parse_rank({"user_id": number + 1, "candidates": offered}), NOBODY)


class Desk:
    """Answers with the user ids, a batch at a time, once it is let."""

    def __init__(self, waiting: int = 1000) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.begun = threading.Event()
        self.queue = Batches(self.work, waiting)

    def work(self, tickets: Sequence[Ticket]) -> None:
        self.begun.set()
        assert self.may_go.wait(10)
        self.batches.append([len(ticket.asked) for ticket in tickets])
        for ticket in tickets:
            ticket.answers = [one.body.user_id for one in ticket.asked]

    async def first_alone(self) -> asyncio.Task:
        """One request in hand, so that what follows has to wait."""
        task = asyncio.create_task(self.queue.ask([asked(0)]))
        await asyncio.to_thread(self.begun.wait, 10)
        return task


def test_what_waits_is_answered_together_and_everybody_gets_their_own():
    desk = Desk()
    desk.queue.start()

    async def run() -> None:
        first = await desk.first_alone()
        others = [asyncio.create_task(desk.queue.ask([asked(2 * n), asked(2 * n + 1)])) for n in range(1, 20)]
        await asyncio.sleep(0.05)
        assert desk.queue.depth == 38
        desk.may_go.set()
        assert await first == [1]
        assert await asyncio.gather(*others) == [[2 * n + 1, 2 * n + 2] for n in range(1, 20)]

    asyncio.run(run())
    desk.queue.close()
    assert desk.batches == [[1], [2] * (BATCH_REQUESTS // 2), [2] * 3] and desk.queue.depth == 0


def test_wide_requests_are_not_padded_beyond_the_limit():
    desk = Desk()
    desk.queue.start()

    async def run() -> None:
        first = await desk.first_alone()
        others = [asyncio.create_task(desk.queue.ask([asked(n, 1000 if n == 9 else 900)])) for n in range(1, 25)]
        await asyncio.sleep(0.05)
        desk.may_go.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    desk.queue.close()
    assert [len(batch) for batch in desk.batches] == [1, BATCH_CELLS // 1000, 8]


def test_too_many_waiting_are_refused_and_the_others_answered():
    desk = Desk(waiting=3)
    desk.queue.start()

    async def run() -> None:
        first = await desk.first_alone()
        others = [asyncio.create_task(desk.queue.ask([asked(n)])) for n in range(1, 4)]
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="3 requests wait already"):
            await desk.queue.ask([asked(9)])
        desk.may_go.set()
        assert await asyncio.gather(first, *others) == [[1], [2], [3], [4]]
        assert await desk.queue.ask([asked(5)]) == [6]

    asyncio.run(run())
    desk.queue.close()


def test_a_batch_that_breaks_fails_alone():
    calls = []

    def work(tickets: Sequence[Ticket]) -> None:
        calls.append(len(tickets))
        if len(calls) == 1:
            raise ValueError("a bug")
        for ticket in tickets:
            ticket.answers = ["fine"]

    queue = Batches(work)
    queue.start()

    async def run() -> None:
        with pytest.raises(ValueError, match="a bug"):
            await queue.ask([asked()])
        assert await queue.ask([asked()]) == ["fine"]

    asyncio.run(run())
    assert queue.alive
    queue.close()
    assert not queue.alive


def test_closing_answers_what_waits():
    desk = Desk()
    desk.queue.start()

    async def run() -> None:
        first = await desk.first_alone()
        others = [asyncio.create_task(desk.queue.ask([asked(n)])) for n in range(1, 50)]
        await asyncio.sleep(0.05)
        desk.may_go.set()
        await asyncio.to_thread(desk.queue.close)
        assert await asyncio.gather(first, *others) == [[n + 1] for n in range(50)]

    asyncio.run(run())
