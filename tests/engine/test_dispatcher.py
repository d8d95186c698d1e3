import asyncio

import pytest

from curator.engine import _dispatcher
from curator.engine._dispatcher import Dispatcher
from curator.engine._remote_scorer import Counts, ScorerLimits, ScorerLostError
from curator.errors import ScoringError

LIMITS = ScorerLimits(least=2, most=2, deadline=60.0, start=60.0, idle=60.0)


class Scorer:
    """A scorer in this loop: answers when it is told to, or at once."""

    def __init__(self, house):
        self.house = house
        self.dead = asyncio.get_running_loop().create_future()
        house.started.append(self)

    async def ready(self):
        if self.house.refusals:
            raise self.house.refusals.pop(0)
        await self.house.open.wait()

    async def score(self, number):
        """Answers ``number``, once it is let go."""
        self.house.seen.append((self, number))
        self.house.at_work[self] = self.house.at_work.get(self, 0) + 1
        self.house.most = max(self.house.most, self.house.at_work[self])
        gate = self.house.gates.get(number)
        try:
            if self in self.house.stuck:
                await asyncio.wait([self.dead])
            elif gate is not None:
                waiting = asyncio.ensure_future(gate.wait())
                await asyncio.wait(
                    [waiting, self.dead], return_when=asyncio.FIRST_COMPLETED
                )
                waiting.cancel()
            else:
                await asyncio.sleep(0)
        finally:
            self.house.at_work[self] -= 1
        if self.dead.done():
            raise ScorerLostError("it died")
        if number in self.house.faults:
            raise self.house.faults[number]
        return number

    async def gone(self):
        await asyncio.shield(self.dead)
        raise ScorerLostError("it died")

    def kill(self):
        if not self.dead.done():
            self.dead.set_result(None)


class House:
    """The scorers of a test, and what they are told."""

    def __init__(self):
        self.started = []
        self.seen = []
        self.at_work = {}
        self.most = 0
        self.gates = {}
        self.faults = {}
        self.stuck = set()
        self.refusals = []
        self.open = asyncio.Event()
        self.open.set()

    def dispatcher(self, limits=LIMITS):
        return Dispatcher("s", lambda: Scorer(self), limits)


def calls(numbers):
    def call(number):
        return lambda scorer: scorer.score(number)

    return [(f"shard {number}", call(number)) for number in numbers]


async def settle():
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def in_loop(test):
    """Runs a coroutine function that takes a house as a test."""

    def run():
        async def inner():
            await test(House())

        asyncio.run(asyncio.wait_for(inner(), 30))

    run.__name__ = test.__name__
    return run


@in_loop
async def test_results_come_in_the_order_of_the_calls(house):
    dispatcher = house.dispatcher()
    assert await dispatcher.run(calls(range(50)), Counts()) == list(range(50))
    dispatcher.close()


@in_loop
async def test_a_scorer_has_two_shards_at_once_and_no_more(house):
    house.gates = {number: asyncio.Event() for number in range(10)}
    dispatcher = house.dispatcher()
    run = asyncio.ensure_future(dispatcher.run(calls(range(10)), Counts()))
    await settle()
    assert house.most == 2
    assert [number for _, number in house.seen] == [0, 1, 2, 3]
    for gate in house.gates.values():
        gate.set()
    assert await run == list(range(10))
    assert house.most == 2
    dispatcher.close()


@in_loop
async def test_requests_are_served_in_the_order_they_came(house):
    house.gates = {0: asyncio.Event()}
    dispatcher = house.dispatcher(ScorerLimits(1, 1, 60.0, 60.0, 60.0))
    first = asyncio.ensure_future(dispatcher.run(calls([0, 1, 2]), Counts()))
    await settle()
    second = asyncio.ensure_future(dispatcher.run(calls([3, 4]), Counts()))
    await settle()
    house.gates[0].set()
    assert await first == [0, 1, 2]
    assert await second == [3, 4]
    assert [number for _, number in house.seen] == [0, 1, 2, 3, 4]
    dispatcher.close()


@in_loop
async def test_shards_of_a_scorer_that_dies_go_to_others_first(house):
    house.gates = {number: asyncio.Event() for number in range(4)}
    dispatcher = house.dispatcher()
    counts = Counts()
    run = asyncio.ensure_future(dispatcher.run(calls(range(8)), counts))
    await settle()
    house.started[0].kill()
    await settle()
    assert len(house.started) == 3
    theirs = [number for scorer, number in house.seen if scorer is house.started[2]]
    assert theirs == [0, 2]
    for gate in house.gates.values():
        gate.set()
    assert await run == list(range(8))
    assert (counts.num_lost_scorers, counts.num_retried_shards) == (1, 2)
    dispatcher.close()


@in_loop
async def test_a_shard_that_outlives_three_scorers_fails(house):
    house.gates = {0: asyncio.Event()}
    dispatcher = house.dispatcher(ScorerLimits(1, 1, 60.0, 60.0, 60.0))
    run = asyncio.ensure_future(dispatcher.run(calls([0]), Counts()))
    for number in range(3):
        await settle()
        house.started[number].kill()
    with pytest.raises(ScoringError, match=r"3 scorers .* were lost .*shard 0.*died"):
        await run
    # What comes next is served.
    house.gates[0].set()
    assert await dispatcher.run(calls([0, 1]), Counts()) == [0, 1]
    dispatcher.close()


@in_loop
async def test_a_scorer_that_finishes_nothing_is_replaced(house):
    house.gates = {0: asyncio.Event()}
    dispatcher = house.dispatcher(ScorerLimits(1, 1, 0.05, 60.0, 60.0))
    counts = Counts()
    run = asyncio.ensure_future(dispatcher.run(calls([0]), counts))
    await house.started[0].dead  # which only the deadline brings about
    house.gates[0].set()
    assert await run == [0]
    assert counts.num_lost_scorers == 1
    dispatcher.close()


@in_loop
async def test_a_straggler_is_done_by_another_too_and_the_first_answer_counts(house):
    dispatcher = house.dispatcher()
    await dispatcher.run(calls(range(1, 9)), Counts())
    house.gates = {0: asyncio.Event()}
    counts = Counts()
    run = asyncio.ensure_future(dispatcher.run(calls([0]), counts))
    await settle()
    while len([number for _, number in house.seen if number == 0]) < 2:
        await asyncio.sleep(0)
    (first, _), (second, _) = (seen for seen in house.seen if seen[1] == 0)
    assert first is not second
    house.gates[0].set()
    assert await run == [0]
    assert (counts.num_hedged_shards, counts.num_lost_scorers) == (1, 0)
    dispatcher.close()


@in_loop
async def test_a_straggler_that_dies_after_the_answer_is_counted_by_the_next(house):
    dispatcher = house.dispatcher()
    await dispatcher.run(calls(range(1, 9)), Counts())
    straggler = house.started[0]
    house.stuck = {straggler}
    first, second, third = Counts(), Counts(), Counts()
    assert await dispatcher.run(calls([0]), first) == [0]

    straggler.kill()
    await settle()

    assert len(house.started) == 3
    assert await dispatcher.run(calls([0]), second) == [0]
    assert await dispatcher.run(calls([0]), third) == [0]
    found = [counts.num_lost_scorers for counts in (first, second, third)]
    assert (found, first.num_hedged_shards) == ([0, 1, 0], 1)
    dispatcher.close()


@in_loop
async def test_a_scorer_that_dies_while_nobody_waits_is_replaced_at_once(house):
    dispatcher = house.dispatcher(ScorerLimits(1, 1, 60.0, 60.0, 60.0))
    assert await dispatcher.run(calls([0]), Counts()) == [0]

    house.started[0].kill()
    await settle()

    assert (len(house.started), dispatcher.num_ready) == (2, 1)
    counts = Counts()
    assert await dispatcher.run(calls([1]), counts) == [1]
    assert (counts.num_lost_scorers, counts.num_retried_shards) == (1, 0)
    dispatcher.close()
    await settle()
    assert len(house.started) == 2  # those that are ended are not replaced


@in_loop
async def test_an_error_of_the_call_is_not_tried_again(house):
    house.faults = {1: ScoringError("example 7"), 2: RuntimeError("a bug")}
    dispatcher = house.dispatcher()
    with pytest.raises(ScoringError, match="example 7"):
        await dispatcher.run(calls([0, 1]), Counts())
    with pytest.raises(ScoringError, match="raised RuntimeError: a bug"):
        await dispatcher.run(calls([2]), Counts())
    assert [number for _, number in house.seen] == [0, 1, 2]
    assert len(house.started) == 2
    dispatcher.close()


@in_loop
async def test_scorers_are_added_while_shards_wait_and_ended_when_idle(house):
    house.gates = {number: asyncio.Event() for number in range(20)}
    dispatcher = house.dispatcher(ScorerLimits(1, 3, 0.5, 60.0, 0.05))
    assert len(house.started) == 1
    run = asyncio.ensure_future(dispatcher.run(calls(range(20)), Counts()))
    await settle()
    assert len(house.started) == 3
    assert [number for _, number in house.seen] == [0, 1, 2, 3, 4, 5]
    for gate in house.gates.values():
        gate.set()
    assert await run == list(range(20))
    alive = [scorer.dead for scorer in house.started]
    await asyncio.wait(alive, return_when=asyncio.FIRST_COMPLETED)
    while dispatcher.num_ready > 1:
        await asyncio.sleep(0)
    assert sum(dead.done() for dead in alive) == 2
    dispatcher.close()


@in_loop
async def test_no_more_are_added_than_waiting_shards_need(house):
    house.open.clear()
    dispatcher = house.dispatcher(ScorerLimits(1, 9, 60.0, 60.0, 60.0))
    run = asyncio.ensure_future(dispatcher.run(calls(range(5)), Counts()))
    await settle()
    assert len(house.started) == 3
    house.open.set()
    assert await run == list(range(5))
    dispatcher.close()


@in_loop
async def test_scorers_that_cannot_be_built_fail_what_waits_and_are_tried_again(house):
    house.refusals = [ScoringError("no such model")] * 4
    dispatcher = house.dispatcher()
    with pytest.raises(ScoringError, match=r"failed to start, the last with: no such"):
        await dispatcher.run(calls([0]), Counts())
    assert await dispatcher.run(calls([0]), Counts()) == [0]
    dispatcher.close()


@in_loop
async def test_a_scorer_lost_while_it_starts_is_started_again(house):
    house.refusals = [ScorerLostError("its node left")] * 9
    dispatcher = house.dispatcher()
    assert await dispatcher.run(calls([0]), Counts()) == [0]
    dispatcher.close()


@in_loop
async def test_shards_that_no_scorer_comes_for_fail_with_the_reason(house):
    house.open.clear()
    dispatcher = house.dispatcher(ScorerLimits(1, 1, 0.05, 0.02, 60.0))
    with pytest.raises(ScoringError, match=r"no scorer for 0\.02 seconds.*starting"):
        await dispatcher.run(calls([0]), Counts())
    house.open.set()
    assert await dispatcher.run(calls([0]), Counts()) == [0]
    dispatcher.close()


def test_the_log_says_once_that_no_scorer_has_come_yet(monkeypatch, caplog):
    monkeypatch.setattr(_dispatcher, "_WARNS_AFTER_SECONDS", 0.0)

    async def wait(house):
        house.open.clear()
        dispatcher = house.dispatcher(ScorerLimits(1, 1, 0.02, 60.0, 60.0))
        run = asyncio.ensure_future(dispatcher.run(calls([0]), Counts()))
        while not caplog.records:
            await asyncio.sleep(0)
        for _ in range(5):  # it looks every 2 ms
            await asyncio.sleep(0.002)
        house.open.set()
        assert await run == [0]
        dispatcher.close()

    in_loop(wait)()

    told = [record.getMessage() for record in caplog.records]
    (warning,) = (text for text in told if "no scorer" in text)
    assert "has no scorer yet: they are still starting" in warning


@in_loop
async def test_what_is_waited_for_fails_when_it_closes(house):
    house.gates = {0: asyncio.Event()}
    dispatcher = house.dispatcher()
    run = asyncio.ensure_future(dispatcher.run(calls(range(9)), Counts()))
    await settle()
    dispatcher.close()
    with pytest.raises(ScoringError, match="are stopped"):
        await run
    assert all(scorer.dead.done() for scorer in house.started)
    with pytest.raises(ScoringError, match="are stopped"):
        await dispatcher.run(calls([1]), Counts())
