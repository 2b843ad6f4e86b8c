"""Reviews of answers, through the console's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from tunewheel_cli.console_answers import CALL, answer_of
from tunewheel_cli.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Reviews:
    """The reviews of one project at one console. ``reviewer`` names who answers, where identity is open.

    Each method returns what the console answers, as ``services/console/README.md`` describes it.

    Raises, each of them:
        TransientError: the console, or what it needs, is away: nothing was kept.
        NotAllowed: it does not know the key, or the key lacks the role reviewer in the project.
        ConsoleRefused
    """

    console: Endpoint
    project: str
    reviewer: str | None = None

    async def list(self) -> dict[str, Any]:
        return answer_of(await self._get(""))

    async def progress(self, review_id: str) -> dict[str, Any]:
        return answer_of(await self._get(_path(review_id)))

    async def item(self, review_id: str, number: int) -> dict[str, Any]:
        return answer_of(await self._get(f"{_path(review_id)}/items/{number}"))

    async def answer(
        self, review_id: str, number: int, *, choice: str, reasons: tuple[str, ...], corrected: str | None
    ) -> dict[str, Any]:
        body = {"choice": choice, "reasons": reasons, "corrected": corrected}
        path = f"{self._place}{_path(review_id)}/items/{number}/answer{self._query}"
        return answer_of(await self.console.put(path, body, **CALL))

    async def submit(self, review_id: str, *, verdict: str, comment: str) -> dict[str, Any]:
        body = {"verdict": verdict, "comment": comment}
        path = f"{self._place}{_path(review_id)}/submit{self._query}"
        return answer_of(await self.console.post(path, body, **CALL))

    async def _get(self, path: str) -> tuple[int, str]:
        return await self.console.get(f"{self._place}{path}{self._query}", {}, **CALL)

    @property
    def _place(self) -> str:
        return f"/v1/projects/{quote(self.project, safe='')}/reviews"

    @property
    def _query(self) -> str:
        return f"?{urlencode({'reviewer': self.reviewer})}" if self.reviewer else ""


def _path(review_id: str) -> str:
    return f"/{quote(review_id, safe='')}"
