"""Finds the completion that a feedback is about: in memory, or else on the log that all gateways share."""

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
"""Finds a completion on the log by its id, reading from a given time on."""
Recalled = tuple[str, InferenceCompleted | None]
"""A completion's project, and the completion; None where it was not found."""


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
