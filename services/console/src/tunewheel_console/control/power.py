"""How probable a verdict by a spec's criteria is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import structlog
from tunewheel_contracts.api.datasets import Power
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256

log = structlog.get_logger(__name__)
SIMULATION_SECONDS = 20.0
"""The longest simulation. A heavy one takes minutes: many criteria, and no number of rows suffices."""
MOST_KEPT = 256
_kept: dict[str, Power] = {}
_one_at_a_time = asyncio.Semaphore(1)


class SimulationEnded(TunewheelError):
    """The process that simulates ended before it answered."""


async def find_power(
    spec: ProjectSpec,
    sizes: Sequence[int] | None = None,
    *,
    card: Scorecard | None = None,
    seconds: float = SIMULATION_SECONDS,
) -> Power | None:
    """Simulate verdicts by the spec's criteria, in another process. None: it took more than ``seconds``, or
    the process was ended, for example for its memory.

    Args:
        sizes: the number of held-out rows of each customer; None: those of ``card``, or else of the smallest
            version that the spec allows.
        card: a scorecard of the project, for the figures of base and champion; None: they are assumed.
    """
    from tunewheel_verdicts.__main__ import ASKED, Asked
    from tunewheel_verdicts.power import expected_by, sizes_for

    sizes = sizes_for(spec, card) if sizes is None else tuple(sizes)
    asked = ASKED.dump_json(Asked(spec, sizes, expected_by(card) if card is not None else {}))
    name = content_sha256(asked)
    if name not in _kept:
        try:
            async with asyncio.timeout(seconds), _one_at_a_time:
                found = await _simulated(asked)
        except (TimeoutError, SimulationEnded) as error:
            log.warning("power_left_out", project=spec.project, reason=str(error) or "too slow")
            return None
        if len(_kept) >= MOST_KEPT:
            del _kept[next(iter(_kept))]
        _kept[name] = found
    return _kept[name]


async def _simulated(asked: bytes) -> Power:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunewheel_verdicts", stdin=pipe, stdout=pipe
    )
    try:
        told, _ = await process.communicate(asked)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise SimulationEnded(f"the simulation of verdicts ended with status {process.returncode}")
    return Power.model_validate_json(told)
