"""Reviews of answers, through the console's API."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.endpoint import Endpoint, detail_of

_CALL: dict[str, Any] = {"patience": 30.0, "option": "--console-url"}


class ReviewRefused(TunewheelError):
    """The console refuses; the message is its own and names the field."""


@dataclass(frozen=True, slots=True)
class Reviews:
    """The reviews of one project at one console. ``reviewer`` names who answers, where identity is open.

    Each method returns what the console answers, as ``services/console/README.md`` describes it.

    Raises, each of them:
        TransientError: the console, or what it needs, is away: nothing was kept.
        NotAllowed: it does not know the key, or the key lacks the role reviewer in the project.
        ReviewRefused
    """

    console: Endpoint
    project: str
    reviewer: str | None = None

    async def list(self) -> dict[str, Any]:
        return _answer(await self._get(""))

    async def progress(self, review_id: str) -> dict[str, Any]:
        return _answer(await self._get(_path(review_id)))

    async def item(self, review_id: str, number: int) -> dict[str, Any]:
        return _answer(await self._get(f"{_path(review_id)}/items/{number}"))

    async def answer(
        self, review_id: str, number: int, *, choice: str, reasons: tuple[str, ...], corrected: str | None
    ) -> dict[str, Any]:
        body = {"choice": choice, "reasons": reasons, "corrected": corrected}
        path = f"{self._place}{_path(review_id)}/items/{number}/answer{self._query}"
        return _answer(await self.console.put(path, body, **_CALL))

    async def submit(self, review_id: str, *, verdict: str, comment: str) -> dict[str, Any]:
        body = {"verdict": verdict, "comment": comment}
        path = f"{self._place}{_path(review_id)}/submit{self._query}"
        return _answer(await self.console.post(path, body, **_CALL))

    async def _get(self, path: str) -> tuple[int, str]:
        return await self.console.get(f"{self._place}{path}{self._query}", {}, **_CALL)

    @property
    def _place(self) -> str:
        return f"/v1/projects/{quote(self.project, safe='')}/reviews"

    @property
    def _query(self) -> str:
        return f"?{urlencode({'reviewer': self.reviewer})}" if self.reviewer else ""


def _answer(said: tuple[int, str]) -> dict[str, Any]:
    status, text = said
    if status in (HTTPStatus.OK, HTTPStatus.CREATED):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    reason = detail_of(status, text)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise TransientError(f"console: {reason}")
    raise ReviewRefused(f"console: {reason}")


def _path(review_id: str) -> str:
    return f"/{quote(review_id, safe='')}"
