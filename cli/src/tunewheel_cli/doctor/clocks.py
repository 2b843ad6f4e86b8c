"""Whether the clocks of an installation agree: events are ordered by their time, and tokens end by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_cli.doctor.findings import Finding, fine, wrong
from tunewheel_cli.reading import consumer

TOLERANCE = timedelta(seconds=30)
"""As long as tokens of an issuer may be early or late; HTTP and S3 tell their time to the second."""
_FETCH_MS = 2_000
_FIX = "run NTP (chrony, systemd-timesyncd) on both machines"


def clock_findings(clocks: Mapping[str, datetime], logged: datetime | None, now: datetime) -> list[Finding]:
    """Return which clocks are not within ``TOLERANCE`` of ``now``, this machine's.

    Args:
        clocks: by whose they are.
        logged: when a broker logged its newest event, by the broker's clock. It can only show that that clock
            is ahead.
    """
    off = {name: clock - now for name, clock in clocks.items() if abs(clock - now) > TOLERANCE}
    if logged is not None and logged - now > TOLERANCE:
        off["a broker"] = logged - now
    found = [
        wrong(
            "clock",
            f"{name} is {abs(by.total_seconds()):,.0f} s {'ahead' if by > timedelta() else 'behind'}",
            _FIX,
        )
        for name, by in off.items()
    ]
    compared = [*clocks, *(["the log's newest event"] if logged is not None else [])]
    if compared and not found:
        found.append(fine("clock", f"this machine's agrees with {', '.join(compared)}"))
    return found


async def newest_logged(options: Mapping[str, Any], names: Sequence[str]) -> datetime | None:
    """Return the newest time at which a broker logged an event on ``names``, topics that brokers stamp."""
    from tunewheel_runtime.partitions import partitions_of

    async with consumer(options) as client:
        partitions = await partitions_of(options, names)
        if not partitions:
            return None
        begins, ends = await client.beginning_offsets(partitions), await client.end_offsets(partitions)
        filled = [tp for tp in partitions if ends[tp] > begins[tp]]
        client.assign(filled)
        for tp in filled:
            client.seek(tp, ends[tp] - 1)
        stamps: dict[Any, int] = {}
        while len(stamps) < len(filled):
            batches = await client.getmany(timeout_ms=_FETCH_MS)
            if not batches:  # the last offsets may hold the marks of transactions
                break
            stamps |= {tp: records[-1].timestamp for tp, records in batches.items()}
    return datetime.fromtimestamp(max(stamps.values()) / 1_000, UTC) if stamps else None
