"""Finds the completion that a feedback is about: in memory, or else on the log that all gateways share. The
latest completions are in memory, so that most feedback needs no search. Erased completions are never found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from tunewheel_contracts.erasures import Erasure, Erasures
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_serve_gateway.completions.ids import CompletionIds, made_at
from tunewheel_serve_gateway.completions.kept import Kept, kept_as
from tunewheel_serve_gateway.errors import UnknownCompletion

Search = Callable[[str, datetime], Awaitable[Envelope[InferenceCompleted] | None]]
"""Finds a completion on the log by its id, reading from a given time on."""
Recalled = tuple[str, InferenceCompleted | None]
"""A completion's project, and the completion; None where it was not found."""


class RecentCompletions:
    """Holds at most ``limit`` logged completions of at most ``limit_bytes`` together. The oldest are dropped
    first. Dropped ones, and after a restart all, are found on the log."""

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def remember(self, kept: Kept) -> None:
        self._held[kept.completion_id] = kept
        self._bytes += kept.size_bytes
        while self._held and (len(self._held) > self._limit or self._bytes > self._limit_bytes):
            _, oldest = self._held.popitem(last=False)
            self._bytes -= oldest.size_bytes

    def get(self, completion_id: str) -> Kept | None:
        return self._held.get(completion_id)

    def forget(self, is_erased: Callable[[Kept], bool]) -> None:
        """Drop the completions for which ``is_erased`` is true."""
        for kept in [one for one in self._held.values() if is_erased(one)]:
            self._bytes -= self._held.pop(kept.completion_id).size_bytes


class Forgetting:
    """All erasures so far, and the completions that each erased at this gateway: those that waited for the
    broker, and recent ones. Applying an event twice is harmless."""

    def __init__(self) -> None:
        self._erasures = Erasures()
        self._asked: dict[str, Erasure] = {}
        self._newest: dict[str, float] = {}
        """By project: Unix seconds after which no erasure covers a completion."""
        self._taken: dict[str, set[str]] = {}
        """By event id: the ids of the erased completions."""

    def apply(self, event: Envelope[ErasureRequested]) -> Callable[[Kept], bool]:
        """Add the erasure; return a function that says whether this erasure covers a completion."""
        self._asked[event.id] = erasure = self._erasures.asked_by(event)
        until = max(self._newest.get(event.project, 0.0), erasure.until.timestamp())
        self._newest[event.project] = until
        return lambda kept: self._takes(event.id, kept)

    def takes(self, kept: Kept) -> bool:
        """Return whether any erasure covers ``kept``."""
        if kept.completed_at > self._newest.get(kept.project, -1.0):
            return False  # The usual case, decided without looking at every erasure of past years.
        return any(self._takes(event_id, kept) for event_id in self._asked)

    def count(self, event_id: str) -> int:
        """Return how many completions the erasure ``event_id`` erased in this process."""
        return len(self._taken.get(event_id, ()))

    def _takes(self, event_id: str, kept: Kept) -> bool:
        at = datetime.fromtimestamp(kept.completed_at, UTC)
        takes = self._asked[event_id].takes(
            project=kept.project, customer=kept.customer, source_id=kept.about, at=at
        )
        if takes:
            self._taken.setdefault(event_id, set()).add(kept.completion_id)
        return takes


@dataclass
class Recall:
    """Finds completions. Those for which ``is_erased`` is true are not returned."""

    recent: RecentCompletions
    ids: CompletionIds
    search: Search
    is_erased: Callable[[Kept], bool]

    async def find(self, completion_id: str, caller: Caller, projects: Collection[str]) -> Recalled:
        """Return the project and the completion of ``completion_id``. ``projects``: those served here.

        Raises:
            UnknownCompletion: no gateway made this id for a project that ``caller`` may use.
            TransientError: the broker is away.
        """
        kept = self.recent.get(completion_id)
        if kept is not None and caller.may(Role.APPLICATION, kept.project):
            return kept.project, kept.data()
        allowed = caller.projects_of(Role.APPLICATION)
        project = self.ids.project_of(completion_id, projects if allowed is None else allowed)
        if project is None:
            raise UnknownCompletion(
                f"this caller's projects have no completion {completion_id}; send the 'id' of the answer",
                param="completion_id",
            )
        found = await self.search(completion_id, made_at(completion_id))
        if found is None or self.is_erased(kept_as(found)):
            return project, None
        return project, found.data
