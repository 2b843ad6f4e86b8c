"""A console's API on loopback: its real routes over a state folded from events, and a log in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from fastapi import Request
from tunewheel_console.actions import Actions
from tunewheel_console.api import add_login_links, add_scorecard_page
from tunewheel_console.control.identity import add_identity
from tunewheel_console.control.log import Log
from tunewheel_console.control.registry import Registry
from tunewheel_console.control.routes import Sources, add_control, add_steering, make_api
from tunewheel_console.feed import Feed
from tunewheel_console.label_api import add_label_routes
from tunewheel_console.labelling import Labelling
from tunewheel_console.letters import Letters
from tunewheel_console.logins import LoginLinks
from tunewheel_console.review_api import add_review_routes
from tunewheel_console.reviewing import Reviewing
from tunewheel_console.settings import Settings
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import WindowJudged
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import caller_of, guard
from tunewheel_runtime.identity.roles import Caller, Role
from tunewheel_runtime.partitions import Backlog
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore

from tunewheel_testing.log import MemoryLog
from tunewheel_testing.served import served

KEY = "tw_lead"
"""A key with every role."""


class _FirstOf(Registry):
    """A registry that a test may name after the console was started."""

    def __init__(self, clients: list[httpx.AsyncClient]) -> None:
        self._clients = clients

    @property
    def _client(self) -> httpx.AsyncClient | None:  # type: ignore[override]
        return self._clients[0] if self._clients else None


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
        self._is_over = False
        self.lags: list[GroupLag] = []
        """What the broker tells of consumer groups."""
        self.registry: list[httpx.AsyncClient] = []
        """The client of the registry, where there is one."""
        self.has_waited = False
        """Whether a command waited for ingest, which has read all that was published."""
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
            self.state.apply(event)
            self.feed.add(event)

    def _applied(self, event: Envelope[Any]) -> None:
        """Fold a command that is on the log, and what ``answer`` says that services make of it."""
        self.read(event, *self.answer(event))

    async def _documents(self, project: str) -> set[str]:
        return self.documents

    @contextmanager
    def serving(self) -> Generator[str]:
        """Serve the API; yields its address."""
        web, actions = make_api(), Actions(self.log, applied=self._applied)  # type: ignore[arg-type]

        async def refresh() -> None:
            pass

        async def backlogs() -> list[Backlog]:
            self.has_waited = True
            return []

        async def lags() -> list[GroupLag]:
            return self.lags

        async def identify(request: Request) -> Caller:
            return caller_of(request)

        sources = Sources(self.store, self.feed, Letters(), lags, _FirstOf(self.registry))
        add_control(web, self.state, sources, identify)
        log = Log(refresh, backlogs, self._documents)
        add_steering(web, self.state, actions, self.store, log, Settings(api_keys_file=self._keys))
        add_review_routes(web, self.state, Reviewing(self.state, actions, self.store, refresh))
        add_label_routes(web, self.state, Labelling(self.state, actions, self.store, refresh))
        add_scorecard_page(web, self.state, self.store)
        add_login_links(web, LoginLinks(), self.access)
        add_identity(web, Settings())
        guard(web.routes, self.access)
        with served(web) as self.url:
            yield self.url
            self._is_over = True
