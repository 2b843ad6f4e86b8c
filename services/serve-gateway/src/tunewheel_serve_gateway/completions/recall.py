"""Which completion feedback is about: remembered here, else looked for on the log that all gateways share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_serve_gateway.completions.ids import CompletionIds, made_at
from tunewheel_serve_gateway.completions.kept import Kept, kept_as
from tunewheel_serve_gateway.completions.recent import RecentCompletions
from tunewheel_serve_gateway.errors import UnknownCompletion

Search = Callable[[str, datetime], Awaitable[Envelope[InferenceCompleted] | None]]
"""Finds a completion on the log by its id, from a moment on."""
Recalled = tuple[str, InferenceCompleted | None]
"""A completion's project, and the completion where it was found."""


class Recall:
    """``is_erased``: what an erasure took is not found."""

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
        """Return what ``completion_id`` names; ``projects`` are those that are served here.

        Raises:
            UnknownCompletion: no gateway answered under this id, in a project that ``caller`` may use.
            TransientError: the broker is away.
        """
        kept = self._recent.get(completion_id)
        if kept is not None and caller.may(Role.APPLICATION, kept.project):
            return kept.project, kept.data()
        allowed = caller.projects_of(Role.APPLICATION)
        project = self._ids.project_of(completion_id, projects if allowed is None else allowed)
        if project is None:
            raise UnknownCompletion(
                f"no completion {completion_id} of this caller's projects; send the 'id' that the answer had",
                param="completion_id",
            )
        found = await self._search(completion_id, made_at(completion_id))
        if found is None or self._is_erased(kept_as(found)):
            return project, None
        return project, found.data
