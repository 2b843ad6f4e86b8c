"""Checks that the clocks of an installation agree: events are ordered by time, and tokens expire by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_cli.doctor.findings import Finding, fine, wrong
from tunewheel_cli.reading import read_records

TOLERANCE = timedelta(seconds=30)
"""The allowed difference, the same as for tokens of an issuer. HTTP and S3 give their time to the second."""
_FIX = "run NTP (chrony, systemd-timesyncd) on both machines"


def clock_findings(offsets: Mapping[str, timedelta], logged: timedelta | None) -> list[Finding]:
    """Return findings about clocks that differ by more than ``TOLERANCE`` from this machine's.

    Args:
        offsets: by name of the clock, by how much it is ahead of this machine's.
        logged: by how much the newest event in the log, stamped by a broker, is ahead. It can only show that
            the broker's clock is ahead.
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
    """Return by how much the newest event on the topics ``names``, stamped by brokers, is ahead of this
    machine's clock; None: there is no event."""
    # The last offset may be a transaction's marker. Then its partition has no stamp.
    stamps = [record.logged_ms or 0 async for record in read_records(options, names, last=1)]
    return datetime.fromtimestamp(max(stamps) / 1_000, UTC) - datetime.now(UTC) if stamps else None
