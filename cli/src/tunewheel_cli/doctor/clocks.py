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


def clock_findings(offsets: Mapping[str, timedelta], logged: timedelta | None) -> list[Finding]:
    """Return which clocks are not within ``TOLERANCE`` of this machine's.

    Args:
        offsets: by how much each clock was ahead of this machine's when it was read, by whose clock it is.
        logged: the same for the newest event in the log, which a broker stamped. It can only show that the
            broker's clock is ahead.
    """
    off = {name: offset for name, offset in offsets.items() if abs(offset) > TOLERANCE}
    if logged is not None and logged > TOLERANCE:
        off["a broker"] = logged
    found = [
        wrong(
            "clock",
            f"{name} is {abs(by.total_seconds()):,.0f} s {'ahead' if by > timedelta() else 'behind'}",
            _FIX,
        )
        for name, by in off.items()
    ]
    compared = [*offsets, *(["the log's newest event"] if logged is not None else [])]
    if compared and not found:
        found.append(fine("clock", f"this machine's agrees with {', '.join(compared)}"))
    return found


async def newest_logged(options: Mapping[str, Any], names: Sequence[str]) -> timedelta | None:
    """Return by how much the newest event on ``names``, topics that brokers stamp, lies ahead of this
    machine's clock; None where there is no event."""
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
        now = datetime.now(UTC)
    return datetime.fromtimestamp(max(stamps.values()) / 1_000, UTC) - now if stamps else None
