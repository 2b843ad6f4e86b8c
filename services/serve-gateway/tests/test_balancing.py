"""Conversations stay with an engine, and no engine gets many more requests than the others."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from random import Random
from typing import Any, cast

import pytest
from tunewheel_serve_gateway.upstream.balancing import EXCESS, beginning_of, pick
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.endpoint import Endpoint

Pick = Callable[[Sequence[Endpoint], bytes], Endpoint]


def engines(number: int) -> list[Endpoint]:
    return [Endpoint(f"http://10.0.0.{n}:8000", cast(Any, None), Breaker()) for n in range(number)]


def begins(n: int) -> bytes:
    return beginning_of("desk-1", [{"role": "user", "content": f"question {n}"}])


def turns_of(pick: Pick) -> Pick:
    turn = count()
    return lambda some, _: some[next(turn) % len(some)]


def least_loaded(some: Sequence[Endpoint], _: bytes) -> Endpoint:
    fewest = min(engine.outstanding for engine in some)
    return next(engine for engine in some if engine.outstanding == fewest)


@dataclass
class Traffic:
    """Conversations with a number of turns each, on engines that remember the prompts they read last."""

    pick: Pick
    number: int
    busy: int
    """How many requests are under way."""
    popular: float = 0.0
    """The share of the requests that ask the same question."""
    remembered: int = 24
    hits: int = 0
    turns: int = 0
    worst: float = 0.0
    """The largest share of the bound that an engine had."""
    seen: dict[str, OrderedDict[int, None]] = field(default_factory=dict)

    def run(self, *, requests: int = 4_000) -> float:
        """Return the share of later turns whose engine remembers the conversation."""
        random, some = Random(7), engines(self.number)
        under_way: list[tuple[Endpoint, int]] = []
        asked: Counter[int] = Counter()
        talking, new = list(range(60)), count(60)
        for _ in range(requests):
            while len(under_way) >= self.busy:
                engine, place = under_way.pop(random.randrange(len(under_way)))
                engine.outstanding -= 1
            place = random.randrange(len(talking))
            one = -1 if random.random() < self.popular else talking[place]
            engine = self.pick(some, begins(one))
            engine.outstanding += 1
            under_way.append((engine, one))
            bound = ceil(EXCESS * len(under_way) / self.number)
            self.worst = max(self.worst, engine.outstanding / bound)
            memory = self.seen.setdefault(engine.name, OrderedDict())
            if one >= 0 and asked[one]:
                self.turns += 1
                self.hits += one in memory
            memory[one] = None
            memory.move_to_end(one)
            if len(memory) > self.remembered:
                memory.popitem(last=False)
            asked[one] += 1
            if one >= 0 and asked[one] == 6:
                talking[place] = next(new)
        return self.hits / self.turns


@pytest.mark.parametrize(("number", "busy"), [(2, 8), (4, 24), (8, 64)])
@pytest.mark.parametrize("popular", [0.0, 0.5])
def test_no_engine_is_above_the_bound_and_conversations_find_their_engine(
    number: int, busy: int, popular: float
):
    ours = Traffic(pick, number, busy, popular)
    found = ours.run()
    assert ours.worst <= 1.0
    for other in (turns_of(pick), least_loaded):
        assert found > 1.25 * Traffic(other, number, busy, popular).run()


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_one_popular_question_is_spread_over_engines(number: int):
    some = engines(number)
    for sent in range(1, 101):
        engine = pick(some, begins(0))
        engine.outstanding += 1
        assert engine.outstanding <= ceil(EXCESS * sent / number)
    assert sum(engine.outstanding for engine in some) == 100
    assert sum(engine.outstanding > 0 for engine in some) >= number / EXCESS


def test_an_engine_that_leaves_moves_no_conversation_of_the_others():
    some = engines(5)
    before = {n: pick(some, begins(n)) for n in range(500)}
    share = Counter(engine.name for engine in before.values())
    assert all(60 < share[engine.name] < 140 for engine in some)
    left = some[1:]
    moved = {n: pick(left, begins(n)) for n, engine in before.items() if engine is some[0]}
    assert all(pick(left, begins(n)) is engine for n, engine in before.items() if engine is not some[0])
    assert len({engine.name for engine in moved.values()}) == 4, "all others take a part"


@pytest.mark.parametrize("prefix", ["http://proxy:8000/", "http://me:pw@proxy:8000/"])
def test_engines_behind_one_host_share_the_conversations(prefix: str):
    some = [Endpoint(f"{prefix}engine-{n}", cast(Any, None), Breaker()) for n in range(3)]
    share = Counter(pick(some, begins(n)).url for n in range(300))
    assert all(60 < share[engine.url] < 140 for engine in some)


def test_the_same_engines_have_the_same_order_in_every_gateway():
    some, others = engines(5), engines(5)[::-1]
    assert [pick(some, begins(n)).name for n in range(50)] == [
        pick(others, begins(n)).name for n in range(50)
    ]


def test_the_turns_of_a_conversation_begin_alike():
    system, question = {"role": "system", "content": "S."}, {"role": "user", "content": "hi"}
    answer, more = {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "more"}
    first = beginning_of("desk-1", [system, question])
    assert beginning_of("desk-1", [system, question, answer, more]) == first
    others = [
        beginning_of("desk-2", [system, question]),
        beginning_of("desk-1", [question]),
        beginning_of("desk-1", [system, more]),
        beginning_of("desk-1", [{**question, "content": "hi\udfff"}]),
        beginning_of("desk-1", [{**question, "content": None}]),
        beginning_of("desk-1", []),
    ]
    assert len({first, *others}) == 7
    long = "x" * 100_000
    assert beginning_of("m", [{"role": "user", "content": long}]) == beginning_of(
        "m", [{"role": "user", "content": long + "y"}]
    )
