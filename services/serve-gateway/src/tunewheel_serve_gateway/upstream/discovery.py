"""Finds engines by resolving a name. Each address of the name is one engine.

In Kubernetes such a name is a headless Service, whose addresses are its ready pods.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from tunewheel_runtime.named_addresses import addresses_behind

from tunewheel_serve_gateway.upstream.endpoint import Endpoint

BY_NAME = "dns+"
"""Prefix of a URL whose host is to be resolved; Thanos has the same notation."""
ANSWER_SECONDS = 3.0
"""Longest wait for the name server."""
MISSED = 2
"""An engine is removed after its address was missing this many times in a row."""


class Discovery:
    """Resolves ``names``, which are URLs such as ``dns+http://vllm:8000``. ``make`` builds the endpoint at an
    address. ``listed``: URLs of engines that the settings list by address; they are not found a second
    time."""

    def __init__(
        self, names: Sequence[str], make: Callable[[str], Endpoint], *, listed: Collection[str] = ()
    ) -> None:
        self._told = {name: frozenset[str]() for name in names}
        self._make = make
        self._listed = frozenset(listed)
        self._found: dict[str, Endpoint] = {}
        self._missed: Counter[str] = Counter()
        self._troubles: dict[str, str] = {}
        # Threads of its own: a name server that does not answer must not block threads that other work needs.
        self._threads = ThreadPoolExecutor(max(1, len(names)), "names")

    @property
    def names(self) -> Collection[str]:
        return self._told.keys()

    @property
    def trouble(self) -> str | None:
        """The names without an address, and why; None: each name has an address."""
        return "; ".join(f"{name}: {reason}" for name, reason in self._troubles.items()) or None

    async def look(self) -> tuple[Collection[Endpoint], Collection[Endpoint]]:
        """Resolve every name; return the engines at new addresses, and those whose address is gone. If the
        name server does not answer, no engine is removed."""
        await asyncio.gather(*(self._ask(name) for name in self._told))
        told = frozenset[str]().union(*self._told.values()) - self._listed
        self._missed = Counter({url: self._missed[url] + 1 for url in self._found.keys() - told})
        gone = [self._found.pop(url) for url, missed in sorted(self._missed.items()) if missed >= MISSED]
        came = {url: self._make(url) for url in sorted(told - self._found.keys())}
        self._found |= came
        return came.values(), gone

    async def _ask(self, name: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                url = name.removeprefix(BY_NAME)
                asked = asyncio.get_running_loop().run_in_executor(self._threads, addresses_behind, url)
                self._told[name] = await asked
        except (OSError, UnicodeError) as error:
            self._troubles[name] = str(error) or f"no answer within {ANSWER_SECONDS:g} s"
            return
        self._troubles.pop(name, None)
        if not self._told[name]:
            self._troubles[name] = "has no address; check the name, and that a pod is ready"
