"""A client of the gateway for tests that look at whole completions and their headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
from tunewheel_contracts.errors import TransientError
from tunewheel_local.http import open_session

from tunewheel_testing.endpoint import Endpoint


class GatewayClient:
    """Talks to one gateway as an application would."""

    def __init__(self, gateway: Endpoint) -> None:
        self._url = gateway.url
        self._headers = gateway.headers

    async def __aenter__(self) -> Self:
        self._session = open_session(timeout=aiohttp.ClientTimeout(total=180), headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def models(self) -> set[str]:
        """Return the ids of the models that can be asked."""
        async with self._session.get(f"{self._url}/v1/models") as answer:
            answer.raise_for_status()
            return {model["id"] for model in (await answer.json())["data"]}

    async def until_served(self, model: str, *, patience: float) -> None:
        """Wait until ``model`` can be asked: its adapter is then loaded.

        Raises:
            TimeoutError: it still cannot after ``patience`` seconds.
        """
        async with asyncio.timeout(patience):
            while model not in await self.models():  # noqa: ASYNC110 - nothing to wait for over HTTP
                await asyncio.sleep(0.1)

    async def ask(self, model: str, question: str, *, max_tokens: int = 64) -> dict[str, Any]:
        """Return the whole completion. Decoding is greedy, so that a second demo shows the same answers.

        Raises:
            TransientError: the gateway or its engine is busy or away.
        """
        completion, _ = await self.complete(model, question, {"max_tokens": max_tokens})
        return completion

    async def complete(
        self, model: str, question: str, fields: dict[str, Any]
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return a completion and its headers; see ``ask``."""
        asked = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        async with self._post("/v1/chat/completions", asked | fields) as answer:
            if answer.status in (429, 502, 503):
                raise TransientError(f"the gateway answered {answer.status}: {await answer.text()}")
            answer.raise_for_status()
            return await answer.json(), answer.headers

    async def correct(self, project: str, completion_id: str, correction: Any, *, by: str) -> None:
        """Send the expert's answer to a completion."""
        await self._say(project, completion_id, {"rating": "down", "correction": correction}, by)

    async def rate(self, project: str, completion_id: str, rating: str, *, by: str) -> None:
        """Send a thumb, ``up`` or ``down``, for a completion."""
        await self._say(project, completion_id, {"rating": rating}, by)

    async def _say(self, project: str, completion_id: str, said: dict[str, Any], by: str) -> None:
        body = {"project": project, "completion_id": completion_id, "submitted_by": by, **said}
        async with self._post("/v1/feedback", body) as answer:
            if answer.status >= 400:
                raise TransientError(f"feedback was refused with {answer.status}: {await answer.text()}")

    @asynccontextmanager
    async def _post(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Post, and raise ``TransientError`` if the connection broke, so that callers try again, as OpenAI's
        clients do. The server may have closed an idle connection."""
        try:
            async with self._session.post(self._url + path, json=body) as answer:
                yield answer
        except aiohttp.ClientConnectionError as error:
            raise TransientError(f"the connection to the gateway broke: {error!r}") from error


def text_of(completion: dict[str, Any]) -> str:
    return completion["choices"][0]["message"]["content"]
