"""Reads events, declared projects and published documents from the log, without a consumer group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from tunewheel_local.connection import unreachable

if TYPE_CHECKING:
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
