"""All that the doctor looks at, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topics import TOPICS

from tunewheel_cli.doctor.clocks import clock_findings, newest_logged
from tunewheel_cli.doctor.endpoints import (
    NO_ENGINE,
    NO_STORE,
    Look,
    look_at_engines,
    look_at_processes,
    look_at_store,
)
from tunewheel_cli.doctor.findings import Finding
from tunewheel_cli.doctor.kafka import kafka_findings
from tunewheel_cli.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Installation:
    """Where everything is. What has no address is not looked at."""

    options: Mapping[str, Any]
    """Of an aiokafka client."""
    prefix: str = ""
    names: Sequence[str] = ("cli",)
    """Whose rights the client must have."""
    store_url: str = ""
    engines: Sequence[Endpoint] = ()
    health_urls: Sequence[str] = ()


async def examine(installation: Installation) -> list[Finding]:
    """Return what is wrong with ``installation``, and what is right."""
    url = installation.store_url
    kafka, store, engines, processes, logged = await asyncio.gather(
        kafka_findings(installation.options, installation.names, prefix=installation.prefix),
        look_at_store(url) if url else _nothing(NO_STORE),
        look_at_engines(installation.engines) if installation.engines else _nothing(NO_ENGINE),
        look_at_processes(installation.health_urls),
        _logged(installation.options),
    )
    looks = (store, engines, processes)
    clocks = {name: clock for look in looks for name, clock in look.clocks.items()}
    return [
        *kafka,
        *(finding for look in looks for finding in look.findings),
        *clock_findings(clocks, logged, datetime.now(UTC)),
    ]


async def _nothing(finding: Finding) -> Look:
    return Look((finding,), {})


async def _logged(options: Mapping[str, Any]) -> datetime | None:
    """Return what ``newest_logged`` does, None where Kafka does not answer or allow it."""
    try:
        return await newest_logged(options, [spec.name for spec in TOPICS if spec.stamped_by_log])
    except TunewheelError:
        return None
