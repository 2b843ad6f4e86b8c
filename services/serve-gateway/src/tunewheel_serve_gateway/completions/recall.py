"""Finds the completion that a feedback is about: in memory, or else on the log that all gateways share. The
latest completions are in memory, so that most feedback needs no search."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
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


class Recall:
    """Finds completions. Those for which ``is_erased`` is true are not returned."""

    def __init__(
        self,
        recent: RecentCompletions,
        ids: CompletionIds,
        search: Search,
        is_erased: Callable[[Kept], bool],
    ) -> None:
        self._recent = recent
        self._ids = ids
        self._search = search
        self._is_erased = is_erased

    async def find(self, completion_id: str, caller: Caller, projects: Collection[str]) -> Recalled:
        """Return the project and the completion of ``completion_id``. ``projects``: those served here.

        Raises:
            UnknownCompletion: no gateway made this id for a project that ``caller`` may use.
            TransientError: the broker is away.
        """
        kept = self._recent.get(completion_id)
        if kept is not None and caller.may(Role.APPLICATION, kept.project):
            return kept.project, kept.data()
        allowed = caller.projects_of(Role.APPLICATION)
        project = self._ids.project_of(completion_id, projects if allowed is None else allowed)
        if project is None:
            raise UnknownCompletion(
                f"this caller's projects have no completion {completion_id}; send the 'id' of the answer",
                param="completion_id",
            )
        found = await self._search(completion_id, made_at(completion_id))
        if found is None or self._is_erased(kept_as(found)):
            return project, None
        return project, found.data
