"""Engines behind a name: each address that the name server gives for it is one.

In a cluster a headless Service is such a name, and its addresses are the pods that are ready.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from tunewheel_serve_gateway.upstream.endpoint import Endpoint

log = structlog.get_logger(__name__)
BY_NAME = "dns+"
"""Before the URL of a name, as Thanos and Prometheus' kin write it."""


@dataclass(frozen=True, slots=True)
class Change:
    """Engines that came, and those whose address is the name's no more."""

    came: Sequence[Endpoint] = ()
    gone: Sequence[Endpoint] = ()


class Discovery:
    """``names``: URLs such as ``dns+http://vllm:8000``. ``make`` makes the engine at an address. ``listed``:
    engines that have addresses of their own, and are not found twice."""

    def __init__(
        self, names: Sequence[str], make: Callable[[str], Endpoint], *, listed: Collection[str] = ()
    ) -> None:
        self._names = {name: frozenset[str]() for name in names}
        self._make = make
        self._listed = frozenset(listed)
        self._found: dict[str, Endpoint] = {}
        self._silent: set[str] = set()

    @property
    def names(self) -> Collection[str]:
        return self._names.keys()

    async def look(self) -> Change:
        """Ask for the addresses of every name. A name without an answer keeps those that it had: an engine
        that is gone is noticed anyway, and one that serves must not be lost to a name server's trouble."""
        for name in self._names:
            try:
                self._names[name] = await addresses_of(name)
            except OSError as error:
                if name not in self._silent:
                    log.warning("engines_not_found", name=name, reason=str(error))
                self._silent.add(name)
            else:
                self._silent.discard(name)
        wanted = frozenset[str]().union(*self._names.values()) - self._listed
        gone = [self._found.pop(url) for url in sorted(self._found.keys() - wanted)]
        came = {url: self._make(url) for url in sorted(wanted - self._found.keys())}
        self._found |= came
        return Change(tuple(came.values()), gone)


async def addresses_of(name: str) -> frozenset[str]:
    """Return the URL of each address of ``name``, ``dns+http://host:port``.

    Raises:
        OSError: the name server gives none.
    """
    parts = urlsplit(name.removeprefix(BY_NAME))
    port = parts.port or 80
    told = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    hosts = {str(address[0]) for *_, address in told}
    return frozenset(f"http://{f'[{host}]' if ':' in host else host}:{port}{parts.path}" for host in hosts)
