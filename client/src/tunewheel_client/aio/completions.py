"""The latest completions of production."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from tunewheel_contracts.api.completions import CompletionDetail, CompletionSummary, LabelsOrdered
from tunewheel_contracts.api.paging import Page

from tunewheel_client.aio.resource import Paging, Resource


class Completions(Resource):
    """Questions of applications and the answers of models, of late. Reading takes the role reviewer."""

    async def list(
        self,
        project: str,
        *,
        q: str | None = None,
        format: str | None = None,
        latency: float | None = None,
        role: str | None = None,
        model: str | None = None,
        label: str | None = None,
        client: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[CompletionSummary]:
        """Return a page of completions, newest first; of those that are searched for.

        Args:
            q: words, or their beginnings; in quotes in this order.
            format: ``valid``, ``invalid``, ``unknown``, or a broken requirement such as ``output_schema``.
            latency: the least seconds.
            client: the name of the API key.
        """
        search = {"q": q, "format": format, "latency": latency, "role": role, "model": model}
        search |= {"label": label, "client": client}
        return await self._read(Page[CompletionSummary], project, "completions", **search, **paging)

    async def show(self, project: str, completion_id: str) -> CompletionDetail:
        """Return a completion with its texts, and what it stands in."""
        return await self._read(CompletionDetail, project, "completions", completion_id)

    async def label(self, project: str, completion_ids: Sequence[str]) -> LabelsOrdered:
        """Ask people for trusted answers to the questions of completions. The same completions have the same
        request for labels."""
        body = {"completions": [*completion_ids]}
        return await self._send(LabelsOrdered, "POST", project, "labels", json=body, is_harmless=True)
