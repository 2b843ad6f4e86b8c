"""Requests for labels, through the console's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from tunewheel_cli.console_answers import CALL, answer_of
from tunewheel_cli.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Labels:
    """The requests of one project at one console. ``reviewer`` names who answers, where identity is open.

    Each method returns what the console answers, as ``services/console/README.md`` describes it.

    Raises, each of them:
        TransientError: the console, or what it needs, is away.
        NotAllowed: it does not know the key, or the key lacks the role reviewer in the project.
        ConsoleRefused
    """

    console: Endpoint
    project: str
    reviewer: str | None = None

    async def list(self) -> dict[str, Any]:
        return await self._get("")

    async def progress(self, request_id: str) -> dict[str, Any]:
        return await self._get(_path(request_id))

    async def item(self, request_id: str, number: int) -> dict[str, Any]:
        return await self._get(f"{_path(request_id)}/items/{number}")

    async def answer(self, request_id: str, number: int, body: dict[str, Any]) -> dict[str, Any]:
        """``body``: ``output``, or that the prompt is ``out_of_scope``."""
        query = f"?{urlencode({'reviewer': self.reviewer})}" if self.reviewer else ""
        path = f"{self._place}{_path(request_id)}/items/{number}/answer{query}"
        return answer_of(await self.console.put(path, body, **CALL))

    async def _get(self, path: str) -> dict[str, Any]:
        return answer_of(await self.console.get(f"{self._place}{path}", {}, **CALL))

    @property
    def _place(self) -> str:
        return f"/v1/projects/{quote(self.project, safe='')}/labels"


def _path(request_id: str) -> str:
    return f"/{quote(request_id, safe='')}"
