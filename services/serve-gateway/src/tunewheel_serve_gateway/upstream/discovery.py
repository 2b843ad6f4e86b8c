"""Engines behind a name: each address that the name server gives for it is one.

In a cluster a headless Service is such a name, and its addresses are the pods that are ready.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tunewheel_runtime.named_addresses import addresses_behind

from tunewheel_serve_gateway.upstream.endpoint import Endpoint

BY_NAME = "dns+"
"""Before the URL of a name, as Thanos writes it."""
ANSWER_SECONDS = 3.0
"""Longest wait for the name server."""
MISSED = 2
"""Looks in a row without an address, after which its engine is let go."""


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
        self._told = {name: frozenset[str]() for name in names}
        self._make = make
        self._listed = frozenset(listed)
        self._found: dict[str, Endpoint] = {}
        self._missed: Counter[str] = Counter()
        self._troubles: dict[str, str] = {}
        # A name server that is silent holds these threads, and none that other work needs.
        self._threads = ThreadPoolExecutor(max(1, len(names)), "names")

    @property
    def names(self) -> Collection[str]:
        return self._told.keys()

    @property
    def trouble(self) -> str | None:
        """Why engines cannot be found; None: each name has an address."""
        return "; ".join(f"{name}: {reason}" for name, reason in self._troubles.items()) or None

    async def look(self) -> Change:
        """Ask for the addresses of every name. A name server that does not answer takes no engine away."""
        await asyncio.gather(*(self._ask(name) for name in self._told))
        told = frozenset[str]().union(*self._told.values()) - self._listed
        self._missed = Counter({url: self._missed[url] + 1 for url in self._found.keys() - told})
        gone = [self._found.pop(url) for url, missed in sorted(self._missed.items()) if missed >= MISSED]
        came = {url: self._make(url) for url in sorted(told - self._found.keys())}
        self._found |= came
        return Change(tuple(came.values()), gone)

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
            self._troubles[name] = "no address is known; is the name right, and a pod ready?"
