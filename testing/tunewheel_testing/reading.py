"""Reads events and declared projects from the log, for tests that look at it from outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import BY_NAME, PROJECT_DECLARED, TopicSpec
from tunewheel_local.connection import unreachable
from tunewheel_runtime.deadletter import Undecoded


@asynccontextmanager
async def reachable(options: Mapping[str, Any]) -> AsyncIterator[None]:
    """Turn the reader's error into a command's.

    Raises:
        TransientError: no Kafka answers.
        NotAllowed: Kafka does not let this client read.
    """
    from tunewheel_runtime.log import LogUnreadable

    try:
        yield
    except LogUnreadable as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise await unreachable(options, cause) from error


async def read_records(
    options: Mapping[str, Any], names: Sequence[str], *, last: int | None = None
) -> AsyncGenerator[Undecoded]:
    """Yield every record of the topics that exist, up to their current ends, in order within a partition.
    ``last``: begin so many offsets before the end of each partition."""
    from tunewheel_runtime.log import read

    async with reachable(options), aclosing(read(options, names, last=last, missing_ok=True)) as batches:
        async for records in batches:
            for record in records:
                yield record


async def read_topics(
    options: Mapping[str, Any], topics: Sequence[TopicSpec], *, skipped: list[str] | None = None
) -> AsyncIterator[Envelope[Any]]:
    """Yield every event of ``topics`` up to their current ends, in order within a partition.

    Events that cannot be decoded are left out and listed in ``skipped``.
    """
    async for record in read_records(options, [topic.name for topic in topics]):
        if BY_NAME[record.position.topic].is_tombstone(record.value):
            continue
        if (event := decode(record, skipped)) is not None:
            yield event


async def read_latest(options: Mapping[str, Any], topic: TopicSpec) -> dict[str, Envelope[Any]]:
    """Return the newest event per key of a compacted topic. A tombstone removes its key."""
    from tunewheel_runtime.log import latest

    async with reachable(options):
        return await latest(options, topic, missing_ok=True)


def decode(record: Undecoded, skipped: list[str] | None = None) -> Envelope[Any] | None:
    """Return a record as an event, None if it is none."""
    from tunewheel_runtime import log

    try:
        return log.decode(record)
    except InvalidEvent as error:
        if skipped is not None:
            place = record.position
            skipped.append(f"{place.topic}[{place.partition}]@{place.offset}: {error}")
        return None


async def follow(
    options: Mapping[str, Any], topics: Sequence[TopicSpec], *, from_beginning: bool = False
) -> AsyncIterator[Envelope[Any]]:
    """Yield the events of ``topics`` as they come, without end, from the beginning or from now on."""
    from tunewheel_runtime import log

    names, last = [topic.name for topic in topics], None if from_beginning else 0
    batches = log.follow(options, names, last=last, missing_ok=True)
    async with reachable(options), aclosing(batches):
        async for records in batches:
            for record in records:
                if (event := log.decoded(record)) is not None:
                    yield event


class UnknownProject(TunewheelError):
    """The project was never declared."""


async def declared_projects(options: Mapping[str, Any]) -> dict[str, ProjectDeclared]:
    """Return the newest declaration of every project."""
    return {key: event.data for key, event in (await read_latest(options, PROJECT_DECLARED)).items()}


async def require_project(options: Mapping[str, Any], project: str) -> ProjectDeclared:
    """Return the declaration of ``project``.

    Raises:
        UnknownProject: there is none; the message lists the declared projects.
    """
    declared = await declared_projects(options)
    if project not in declared:
        others = f" (declared: {', '.join(sorted(declared))})" if declared else ""
        raise UnknownProject(
            f"project: {project!r} is not declared{others}; "
            "run `tunewheel project declare project.yaml` first"
        )
    return declared[project]
