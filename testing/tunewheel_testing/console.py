"""A console's API on loopback: its real routes over a state folded from events, and a log in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml
from fastapi import FastAPI
from tunewheel_console.actions import Actions
from tunewheel_console.completions import Completions, Kept
from tunewheel_console.control.events import Feed
from tunewheel_console.control.log import Log
from tunewheel_console.control.neighbours import Neighbour
from tunewheel_console.control.routes import Sources
from tunewheel_console.labelling import Labelling
from tunewheel_console.letters import Letters
from tunewheel_console.main import make_web
from tunewheel_console.reviewing import Reviewing
from tunewheel_console.settings import Settings
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import WindowJudged
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.partitions import Backlog
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore

from tunewheel_testing.log import MemoryLog
from tunewheel_testing.served import served

KEY = "tw_lead"
"""A key with every role."""


class Console:
    """One console. ``log`` holds the events that the console publishes, ``state`` the fold of those
    that were read."""

    def __init__(self, folder: Path, store: ObjectStore | None = None) -> None:
        self.state = ConsoleState()
        self.log = MemoryLog()
        self.store = store or ObjectStore((folder / "store").as_uri())
        self.url = ""
        self.documents: set[str] = set()
        """The documents that the project ever had."""
        self.answer: Callable[[Envelope[Any]], Iterable[Envelope[Any]]] = lambda _: ()
        """The events by which services answer a command."""
        self.feed = Feed(lambda: self._is_over)
        self.letters = Letters(self._letters_at)
        self._refused: dict[tuple[int, int], Undecoded] = {}
        self._is_over = False
        self.lags: list[GroupLag] = []
        """What the broker tells of consumer groups."""
        self.registry = Neighbour("registry", None, setting="TUNEWHEEL_REGISTRY_URL")
        """A test may give it a client."""
        self.has_waited = False
        """Whether a command waited for ingest, which has read all that was published."""
        self.completions = Completions(Path(mkdtemp(dir=folder)))
        self.completions.open()
        self._keys = keys = folder / "keys.yaml"
        entry = {"sha256": content_sha256(KEY.encode()), "roles": [role.value for role in Role]}
        keys.write_text(yaml.safe_dump({"keys": {"lead": entry}}))
        self.access = Access(HttpSettings(identity="required", api_keys_file=keys), warn=lambda *_: None)

    def read(self, *events: Envelope[Any]) -> None:
        """Fold ``events``, as if they came from the log."""
        for event in events:
            if isinstance(event.data, WindowJudged):
                self.state.judge(event)
                continue
            if isinstance(event.data, InferenceCompleted):
                self.completions.add([Kept(event.data, Position(event.data.type, 0, 0))], {})
            self.state.apply(event)
            self.feed.add(event)

    def refuse(self, letter: Undecoded) -> None:
        """Read a dead letter."""
        self._refused[letter.position.partition, letter.position.offset] = letter
        self.letters.add(letter)

    async def _letters_at(
        self, _: str, places: Collection[tuple[int, int]]
    ) -> dict[tuple[int, int], Undecoded]:
        return {at: self._refused[at] for at in places}

    def _applied(self, event: Envelope[Any]) -> None:
        """Fold a command that is on the log, and what ``answer`` says that services make of it."""
        self.read(event, *self.answer(event))

    async def _documents(self, project: str) -> set[str]:
        return self.documents

    def web(self) -> FastAPI:
        """Return the app of the API and the pages."""
        actions = Actions(self.log, applied=self._applied)  # type: ignore[arg-type]

        async def refresh() -> None:
            pass

        async def backlogs() -> list[Backlog]:
            self.has_waited = True
            return []

        async def lags() -> list[GroupLag]:
            return self.lags

        gateway = Neighbour("serve-gateway", None, setting="TUNEWHEEL_GATEWAY_URL")
        sources = Sources(self.store, self.feed, self.letters, lags, self.registry, gateway, self.completions)
        web = make_web(
            self.state, actions, Reviewing(self.state, actions, self.store, refresh),
            Labelling(self.state, actions, self.store, refresh), self.access,
            Settings(api_keys_file=self._keys), sources, Log(refresh, backlogs, self._documents),
        )  # fmt: skip
        guard(web.routes, self.access)
        return web

    @contextmanager
    def serving(self) -> Generator[str]:
        """Serve the app; yields its address."""
        with served(self.web()) as self.url:
            yield self.url
            self._is_over = True
