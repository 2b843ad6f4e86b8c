"""Runs all checks of the doctor, in order; those of clocks and of the device are here.

The clocks of an installation must agree, because events are ordered by time, and tokens expire by time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topics import PROJECT_DECLARED, TOPICS
from tunewheel_planner.driver import Driver, cuda_of_torch, least_driver, read_driver

from tunewheel_cli.doctor.endpoints import (
    ENGINE_CAFILE,
    NO_ENGINE,
    NO_STORE,
    Engine,
    Look,
    look_at_bases,
    look_at_engines,
    look_at_processes,
    look_at_store,
)
from tunewheel_cli.doctor.findings import Finding, fine, unknown, wrong
from tunewheel_cli.doctor.kafka import kafka_findings

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
    from tunewheel_runtime.log import read

    async with aclosing(read(options, names, last=1, missing_ok=True)) as batches:
        stamps = [record.logged_ms or 0 async for records in batches for record in records]
    return datetime.fromtimestamp(max(stamps) / 1_000, UTC) - datetime.now(UTC) if stamps else None


@dataclass(frozen=True, slots=True)
class Installation:
    """The addresses of an installation. A part without an address is not checked."""

    options: Mapping[str, Any]
    """Options of an aiokafka client."""
    prefix: str = ""
    names: Sequence[str] = ("cli",)
    """The principals whose rights the client must have."""
    store_url: str = ""
    engines: Sequence[Engine] = ()
    engine_authority: str = ENGINE_CAFILE
    """The variable that names the file of the engines' certificate authority."""
    health_urls: Sequence[str] = ()


async def examine(installation: Installation) -> list[Finding]:
    """Return the findings about ``installation``, good and bad."""
    url, engines = installation.store_url, installation.engines
    *looks, logged = await asyncio.gather(
        _completed("kafka", _look_at_kafka(installation)),
        _completed("store", look_at_store(url) if url else _nothing(NO_STORE)),
        _completed(
            "engine",
            look_at_engines(engines, installation.engine_authority) if engines else _nothing(NO_ENGINE),
        ),
        _completed("services", look_at_processes(installation.health_urls)),
        _completed("base", _look_at_bases(installation)),
        _logged(installation.options),
    )
    offsets = {name: offset for look in looks for name, offset in look.offsets.items()}
    return [
        *(finding for look in looks for finding in look.findings),
        await asyncio.to_thread(device_finding),
        *clock_findings(offsets, logged),
    ]


async def _completed(about: str, look: Awaitable[Look]) -> Look:
    """Return the result of ``look``. Its failure becomes a finding, so that other findings are still
    shown."""
    try:
        return await look
    except TunewheelError as error:
        return Look((wrong(about, str(error), "mend the setting that the reason names"),), {})
    except Exception as error:
        text = f"the doctor cannot understand what it sees: {type(error).__name__}: {error}"
        return Look((wrong(about, text, f"see that the address is that of the {about}, and its log"),), {})


async def _look_at_kafka(installation: Installation) -> Look:
    found = await kafka_findings(installation.options, installation.names, prefix=installation.prefix)
    return Look(tuple(found), {})


async def _look_at_bases(installation: Installation) -> Look:
    """Look at the bases of declared projects. If the log cannot be read, the check of Kafka says why."""
    from tunewheel_runtime.log import latest

    try:
        declared = await latest(installation.options, PROJECT_DECLARED, missing_ok=True)
    except Exception:
        return Look((), {})
    return await look_at_bases(sorted({event.data.spec.base_model for event in declared.values()}))


async def _nothing(finding: Finding) -> Look:
    return Look((finding,), {})


async def _logged(options: Mapping[str, Any]) -> timedelta | None:
    """Return the result of ``newest_logged``; None if Kafka does not answer or allow it."""
    try:
        return await newest_logged(options, [spec.name for spec in TOPICS if spec.is_from_upstream])
    except Exception:  # the check of Kafka reports the reason
        return None


def device_finding() -> Finding:
    """Return the finding about this machine."""
    asked = os.environ.get("TUNEWHEEL_TRAIN_GPUS") or os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return judge_device(read_driver(), cuda_of_torch(), asked="" if asked == "-1" else asked)


def judge_device(driver: Driver | None, cuda: str | None, *, asked: str) -> Finding:
    """Judge a machine with ``driver`` and a PyTorch built for ``cuda``. ``asked``: the GPUs that were asked
    for; empty: none was."""
    if driver is None:
        text = "this machine has no NVIDIA driver"
        if asked:
            fix = "install the driver, give the container its GPUs, or unset TUNEWHEEL_TRAIN_GPUS"
            return wrong("device", f"{text}, but GPU {asked} is asked for", fix)
        return unknown("device", f"{text}: runs that train here use the processor")
    torch = f"torch is built for CUDA {cuda}" if cuda else "no torch for CUDA is installed here"
    text = f"{', '.join(driver.cards) or 'a GPU'}, {driver}; {torch}"
    if not driver.suffices(cuda):
        return wrong("device", text, f"update the driver to {least_driver(cuda)} or newer")
    return fine("device", text)
