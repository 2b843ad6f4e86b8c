"""The latest completions of production."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from tunewheel_contracts.api.completions import CompletionDetail, CompletionSummary, LabelsOrdered
from tunewheel_contracts.api.paging import Page

from tunewheel_client.aio.resource import Paging, Resource


class Search(TypedDict, total=False):
    """What is searched: ``q``, words or their beginnings; ``format``: ``valid``, ``invalid``, ``unknown`` or
    a broken requirement; ``latency``: at least so many seconds; ``client``: the name of the key."""

    q: str
    format: str
    latency: float
    role: str
    model: str
    label: str
    client: str


class Completions(Resource):
    """What applications asked lately, and what they got. It takes the role reviewer."""

    async def list(
        self, project: str, search: Search | None = None, **paging: Unpack[Paging]
    ) -> Page[CompletionSummary]:
        """Return a page of completions, newest first; of those that are searched for."""
        return await self._read(Page[CompletionSummary], project, "completions", **(search or {}), **paging)

    async def show(self, project: str, completion_id: str) -> CompletionDetail:
        """Return a completion with its texts, and what it stands in."""
        return await self._read(CompletionDetail, project, "completions", completion_id)

    async def label(self, project: str, completion_ids: Sequence[str]) -> LabelsOrdered:
        """Ask people for trusted answers to the questions of completions. The same completions have the same
        request for labels."""
        return await self._send(
            LabelsOrdered,
            "POST",
            project,
            "labels",
            json={"completions": [*completion_ids]},
            is_harmless=True,
        )
