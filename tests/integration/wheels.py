"""Whole wheels that tests start: real processes on ports and a folder of their own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from tunewheel_local import launch, roster
from tunewheel_local.connection import Connection
from tunewheel_local.kafka.errors import JarUnavailable
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.launch import Plan, Wheel
from tunewheel_local.places import Var
from tunewheel_local.roster import Member, choose
from tunewheel_local.wheel_secrets import local_key
from tunewheel_testing.feed import EventFeed

LOG_TAIL_CHARACTERS = 2_500


@contextlib.asynccontextmanager
async def turning(
    root: Path,
    services: Iterable[str],
    *,
    environment: Mapping[str, str] | None = None,
    base_model: str | None = None,
    commands: Mapping[str, Sequence[str]] | None = None,
    kafka: str | None = None,
) -> AsyncIterator[tuple[Wheel, EventFeed]]:
    """Start ``services`` on a broker and a store below ``root``; a failure inside shows the logs' ends.

    They ask who calls, as they do for everybody: ``Endpoint.of`` has the key.

    ``commands`` start services, by their names, in other ways than the wheel does. ``kafka`` names a broker
    that already runs.
    """
    members = choose(services)
    # The cache of the machine stays as it is; only a converted base model may be shared with it.
    own = {"TUNEWHEEL_CACHE_DIR": str(root / "cache"), "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000"}
    wheel = Wheel(
        Plan(
            var=Var(root),
            members=members,
            connection=Connection(bootstrap_servers=kafka),
            kafka_port=free_port(),
            ports=free_ports(members),
            base_model=base_model,
            extra_env=own | dict(environment or {}),
            pseudonym_secret=False,  # two wheels make the same versions of the same records
        )
    )
    try:
        with pytest.MonkeyPatch.context() as patched:
            others = {name: list(command) for name, command in (commands or {}).items()}
            patched.delenv("TUNEWHEEL_IDENTITY", raising=False)
            patched.setattr(launch, "command", lambda m: others.get(m.name) or roster.command(m))
            await wheel.start()
        settings = Connection(bootstrap_servers=wheel.bootstrap_servers).settings()
        async with EventFeed(settings) as feed:
            yield wheel, feed
    except JarUnavailable as error:
        pytest.skip(f"Kafka's jars are not in the cache and cannot be downloaded: {error}")
    except BaseException as error:
        error.add_note(log_tails(root))
        raise
    finally:
        await wheel.stop()


def free_ports(members: Iterable[Member]) -> dict[str, int]:
    """Return a port for each name of ``members``, health's included.

    The usual ports will not do: wheels that start at the same moment would all find them free.
    """
    return {name: free_port() for member in members for name in member.ports}


def key_of(wheel: Wheel) -> str:
    """Return the key of the wheel's user, for clients that want it by itself."""
    key = local_key(wheel.plan.var)
    assert key is not None
    return key.get_secret_value()


def log_tails(root: Path) -> str:
    """Return how the logs below ``root`` end, the broker's aside."""
    logs = sorted(path for path in (root / "logs").glob("*.log") if path.stem != "kafka")
    return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-LOG_TAIL_CHARACTERS:]}" for p in logs)
