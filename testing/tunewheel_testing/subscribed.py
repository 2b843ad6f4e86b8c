"""A service's handlers without the service: a test calls them, in the order that it is about."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope, Event, new_event
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import make_telemetry


class Anybody:
    """Access where everybody may do everything."""

    async def require(self, *_: Any, **__: Any) -> None: ...


class Signed:
    """Signatures of a log that was signed from its beginning."""

    def predates(self, position: Any) -> bool:
        return False


class Empty:
    """A view of a topic that holds nothing."""

    async def refresh(self) -> None: ...

    def get(self, project: str) -> None:
        return None


class Subscribed:
    """What a service subscribed to, to be called by hand: a handler as ``on_<topic>``, what is replayed by
    the topic's name. Everybody may do everything."""

    def __init__(self, name: str, store: ObjectStore) -> None:
        self.name = name
        self.store = store
        self.telemetry = make_telemetry(name, None)
        self.replayed: dict[str, Any] = {}
        self.told: list[Event] = []
        self.access: Any = Anybody()
        self.doors: Any = self
        self.signatures: Any = Signed()

    def replay(self, topics: Any, apply: Any) -> Any:
        self.replayed |= {topic.name: apply for topic in topics}
        return Empty()

    def replay_at(self, topics: Any, apply: Any) -> Any:
        return self.replay(topics, apply)

    def view(self, topic: Any) -> Any:
        return Empty()

    def check(self, topic: Any) -> None: ...

    def ask_who(self) -> None: ...

    def on_startup(self, hook: Any) -> None: ...

    def on(self, topic: Any, **_: Any) -> Any:
        return lambda handler: setattr(self, f"on_{topic.name.replace('.', '_')}", handler)

    job = on

    def new(self, data: Event, *, cause: Envelope[Any]) -> Envelope[Any]:
        return new_event(data, source="/test", cause=cause)

    async def publish(self, event: Envelope[Any]) -> None:
        self.told.append(event.data)
