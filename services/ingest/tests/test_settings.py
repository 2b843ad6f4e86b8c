from __future__ import annotations

import pytest
from pydantic import ValidationError
from tunewheel_ingest.settings import DOCUMENTS_AT_ONCE, MAX_WALL_SECONDS, TICKETS_AT_ONCE, Settings

POLL_SECONDS = 600
"""After which Kafka takes a member that fetches nothing for dead (the runtime's ``max_poll_interval_ms``)."""


def test_the_slowest_documents_leave_time_to_fetch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were they to take longer, the member would lose its partitions and read the same documents for ever."""
    assert DOCUMENTS_AT_ONCE * MAX_WALL_SECONDS <= 0.8 * POLL_SECONDS
    monkeypatch.setenv("TUNEWHEEL_PARSE_WALL_SECONDS", str(MAX_WALL_SECONDS + 1))
    with pytest.raises(ValidationError, match="parse_wall_seconds"):
        Settings()


@pytest.mark.parametrize("cpu_seconds", [90, 3_600])
def test_the_slowest_tickets_leave_time_to_fetch_again(cpu_seconds: int) -> None:
    settings = Settings(parse_cpu_seconds=cpu_seconds, parse_wall_seconds=MAX_WALL_SECONDS)
    assert TICKETS_AT_ONCE * settings.parse_limits.for_mail.wall_seconds <= 0.8 * POLL_SECONDS


def test_limits_are_what_the_settings_say() -> None:
    settings = Settings(parse_memory_mb=300, parse_cpu_seconds=7, parse_wall_seconds=8, max_parsed_mb=2)
    limits = settings.parse_limits
    assert (limits.memory_bytes, limits.cpu_seconds, limits.wall_seconds, limits.output_bytes) == (
        300 << 20,
        7,
        8,
        2 << 20,
    )
