"""Model versions without a route that are loaded because a client asked for them by id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tunewheel_contracts.formats.run import AdapterRef

from tunewheel_serve_gateway.errors import Unavailable
from tunewheel_serve_gateway.upstream.endpoint import Endpoint


class OnDemand:
    """Holds at most ``limit`` versions, each on one engine. When a further one is wanted, the least recently
    wanted version that is not answering is dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loaded: OrderedDict[str, tuple[AdapterRef, Endpoint]] = OrderedDict()

    def want(self, adapter: AdapterRef, home: Endpoint, *, in_use: Callable[[str], bool]) -> None:
        """Keep ``adapter`` on ``home`` until others need its place. Raises Unavailable: all loaded versions
        are answering, or ``limit`` is 0."""
        self._loaded.pop(adapter.model_id, None)
        if len(self._loaded) >= self._limit:
            idle = next((name for name in self._loaded if not in_use(name)), None)
            if idle is None:
                raise Unavailable(
                    f"{self._limit} versions without a route are loaded, and all of them are answering; try "
                    "again shortly, or raise TUNEWHEEL_ON_DEMAND_ADAPTERS",
                    param="model",
                    retry_after="2",
                )
            del self._loaded[idle]
        self._loaded[adapter.model_id] = (adapter, home)

    def drop(self, model_id: str) -> None:
        self._loaded.pop(model_id, None)

    def leave(self, endpoint: Endpoint) -> None:
        """Forget the versions on an engine that is gone."""
        for name in self.on(endpoint):
            self.drop(name)

    def on(self, endpoint: Endpoint) -> dict[str, AdapterRef]:
        """Return the versions that ``endpoint`` should have loaded, by model id."""
        return {name: adapter for name, (adapter, home) in self._loaded.items() if home is endpoint}
