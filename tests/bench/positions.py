"""How far a flood came between what another team asked for and its answer: by the times of the log."""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import inf
from statistics import median
from typing import Any, NamedTuple

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_testing.reading import read_records

BUILT = (topics.DATASET_VERSIONED, topics.DATASET_REJECTED)
JUDGED = (topics.EVAL_PASSED, topics.EVAL_FAILED, topics.EVAL_UNDECIDED)
ANSWERS = {
    "log": (topics.TICKET_PUBLISHED, (topics.RECORD_INGESTED,)),
    "build": (topics.DATASET_REQUESTED, BUILT),
    "build's slot": (topics.DATASET_REQUESTED, BUILT),
    "train": (topics.DATASET_VERSIONED, (topics.TRAIN_COMPLETED, topics.TRAIN_FAILED)),
    "eval": (topics.TRAIN_COMPLETED, JUDGED),
    "model": (topics.TRAIN_COMPLETED, (topics.MODEL_REGISTERED,)),
}
"""By door: what is asked for on the log, and what answers it. A person's request for a build is answered by a
request that names its records; curate's request waits for the slot."""
SLOTS = ("build", "build's slot", "train", "eval")
"""The doors whose jobs wait for a slot."""
Found = dict[str, list[tuple[float, Envelope[Any]]]]
"""By topic: when its events came on the log, in milliseconds, and the events."""


class Asked(NamedTuple):
    """One piece of a team's work; times in milliseconds."""

    asked: float
    answered: float
    """Infinite: never."""


def position(one: Asked, flood: Sequence[float]) -> int:
    """Return how many pieces of the flood's work were done in between. ``flood``: their sorted times."""
    return bisect(flood, one.answered) - bisect(flood, one.asked)


def alone(work: Iterable[Asked]) -> list[Asked]:
    """Return the pieces of a team's work that it asked for when nothing else of it was waiting."""
    found, ends = list[Asked](), -inf
    for one in sorted(work):
        if one.asked >= ends:
            found.append(one)
        ends = max(ends, one.answered)
    return found


def summary(teams: Mapping[str, Sequence[Asked]], flood: Sequence[float], *, slots: bool) -> dict[str, Any]:
    """Return what was asked for and done, and the positions. With ``slots`` also the positions of the pieces
    that were their team's only one, and how many of these had each position. The promise: before such a
    piece end at most the flood's job that runs and one waiting job of the flood."""
    work = list(chain.from_iterable(teams.values()))
    done = [one for one in work if one.answered < inf]
    told: dict[str, Any] = {"asked": len(work), "done": len(done)} | _positions(done, flood)
    if slots:
        only = [one for mine in teams.values() for one in alone(mine) if one.answered < inf]
        counts = Counter(position(one, flood) for one in only)
        told["alone"] = {"done": len(only), "by position": dict(sorted(counts.items()))}
    return told


def _positions(done: Sequence[Asked], flood: Sequence[float]) -> dict[str, Any]:
    found = [position(one, flood) for one in done]
    return {"median": median(found), "most": max(found)} if found else {}


async def read_log(servers: str) -> Found:
    wanted = {topic.name: topic for asked, answers in ANSWERS.values() for topic in (asked, *answers)}
    events: Found = defaultdict(list)
    async for record in read_records({"bootstrap_servers": servers}, list(wanted)):
        topic = wanted[record.position.topic]
        event = Envelope.from_kafka(topic.event, record.value, record.headers)
        events[topic.name].append((record.logged_ms or 0, event))
    return events


def on_the_log(events: Found, flood: str) -> dict[str, Any]:
    """Return by door how the work of the teams other than ``flood`` was answered."""
    return {door: _at(door, events, flood) for door in ANSWERS}


def _at(door: str, events: Found, flood: str) -> dict[str, Any]:
    asked, answers = ANSWERS[door]
    done: dict[str, tuple[float, Envelope[Any]]] = {}
    for at, event in chain.from_iterable(events[one.name] for one in answers):
        if answered := _answered(door, event):  # a team's own report of a version or model answers nothing
            done.setdefault(answered, (at, event))
    if door == "build":
        named = {event.id: event.causation_id for _, event in events[asked.name] if event.causation_id}
        done = {named.get(cause, cause): answer for cause, answer in done.items()}
    requests = [(at, event) for at, event in events[asked.name] if _is_of(door, event)]
    teams: dict[str, list[Asked]] = defaultdict(list)
    for at, event in requests:
        if event.project != flood:
            answer = done.get(_asked(door, event))
            teams[event.project].append(Asked(at, answer[0] if answer else inf))
    # A run that a newer version superseded took no slot: that is no work.
    worked = [e for e in done.values() if not getattr(e[1].data, "superseded_by", None)]
    ends = sorted(at for at, event in worked if event.project == flood)
    sent = sum(event.project == flood for _, event in requests)
    told = summary(teams, ends, slots=door in SLOTS)
    return told | {"superseded": _superseded(done, flood), "flood sent": sent, "flood done": len(ends)}


def _asked(door: str, event: Envelope[Any]) -> str:
    return event.data.adapter.model_id if door == "model" else event.id


def _answered(door: str, event: Envelope[Any]) -> str | None:
    """Return what an event answers, as ``_asked`` names it. A model's verdict may register it too, if the
    registry reads it first."""
    return event.data.model_id if door == "model" else event.causation_id


def _is_of(door: str, event: Envelope[Any]) -> bool:
    """Return whether a request is one of ``door``: those for builds are told apart by who asked."""
    if event.data.type != topics.DATASET_REQUESTED.name:
        return True
    return (event.causation_id is None) == (door == "build")


def _superseded(done: Mapping[str, tuple[float, Envelope[Any]]], flood: str) -> int:
    """Return how many runs of the other teams were superseded before they began."""
    others = (event.data for _, event in done.values() if event.project != flood)
    return sum(bool(getattr(data, "superseded_by", None)) for data in others)
