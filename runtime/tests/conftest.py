from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is said of TLS on both event loops that services have: TLS is asyncio's own on either."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_tls.py":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories
