"""The protocol of vLLM and of ``tunewheel-engine``: OpenAI's chat API, and vLLM's adapter endpoints.

Source: vLLM, "OpenAI-compatible server" and "LoRA adapters" (runtime loading).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
from tunewheel_runtime.chat import without_key
from tunewheel_runtime.request_ids import outgoing

from tunewheel_serve_gateway.upstream.bases import EngineIdentity, identity_of
from tunewheel_serve_gateway.upstream.connection import BROKE_OFF, SILENT, Connection
from tunewheel_serve_gateway.upstream.connections import Connections
from tunewheel_serve_gateway.upstream.protocol import (
    AT_HAND,
    Chunk,
    Timeouts,
    UpstreamBroken,
    UpstreamError,
    UpstreamSilent,
    failure,
    message_of,
    says_something,
)
from tunewheel_serve_gateway.upstream.sse import DONE, read_data

TEXT_OR_NONE = (str, type(None))


class OpenAiUpstream:
    """One engine behind ``url``."""

    def __init__(
        self,
        url: str,
        *,
        chats: str = "/v1/chat/completions",
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeouts: Timeouts | None = None,
        retry_after: int = 2,
    ) -> None:
        """``chats``: the path of the chat API below ``url``. ``tls``: the trusted certificate
        authorities; None: the system's."""
        headers = {"content-type": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._chats, self._key = chats, api_key
        self._timeouts = timeouts or Timeouts()
        self._retry_after = str(retry_after)
        self._connections = Connections(
            url, headers=headers, tls=tls, timeouts=self._timeouts, retry_after=self._retry_after
        )
        self.identity = EngineIdentity()

    async def close(self) -> None:
        self._connections.close()

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = as_object(await self._whole("POST", self._chats, body))
        if not _says(answer, "message"):
            raise self._no_answer(answer)
        return answer

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        connection = await self._ask("POST", self._chats, body, streams=True)
        begun = speaks = is_done = False
        try:
            async for payload, more in read_data(connection.parts()):
                if payload == DONE:
                    is_done = True
                    if not begun:
                        raise UpstreamBroken("the engine ended its answer before it began; try again")
                    return
                chunk = as_object(payload)
                if _says(chunk, "delta"):
                    begun = True
                elif chunk.get("choices") != [] or chunk.get("error"):  # The chunk with usage has no choice.
                    raise self._no_answer(chunk)
                speaks = speaks or (begun and says_something(chunk))
                connection.expect(self._timeouts.between_tokens if speaks else self._timeouts.first_byte)
                if begun:
                    if more:
                        chunk[AT_HAND] = True
                    yield chunk
        finally:
            self._connections.release(connection, is_ending=is_done)
        raise UpstreamBroken(BROKE_OFF)

    async def list_models(self) -> set[str] | None:
        answer = await self.read("/v1/models")
        models = answer.get("data")
        if not isinstance(models, list):
            raise self._no_answer(answer)
        self.identity = identity_of(models)
        return {str(model["id"]) for model in models if isinstance(model, dict) and "id" in model}

    async def read(self, path: str) -> dict[str, Any]:
        """Return the JSON object that the engine serves at ``path``."""
        return as_object(await self._whole("GET", path, seconds=self._timeouts.control))

    async def load_adapter(self, name: str, path: Path) -> None:
        await self._change("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})

    async def unload_adapter(self, name: str) -> None:
        await self._change("/v1/unload_lora_adapter", {"lora_name": name}, seconds=self._timeouts.control)

    async def _change(self, path: str, body: dict[str, Any], *, seconds: float | None = None) -> None:
        answer = await self._whole("POST", path, body, seconds=seconds)
        if answer.startswith(b"{") and (said := as_object(answer)).get("error"):
            raise self._no_answer(said)  # A success is answered in plain text, not in JSON.

    def _no_answer(self, answer: dict[str, Any]) -> UpstreamError:
        """Return the error for an answer of status 200 that holds no completion. Proxies answer so, and
        engines after a stream has begun."""
        error = answer.get("error") or answer
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            body, retry_after = orjson.dumps(answer), self._retry_after
            return failure(code, body, key=self._key, retry_after=None, default_retry_after=retry_after)
        reason = message_of(answer) or "the answer has no completion; is engine_url an OpenAI server?"
        detail = without_key(reason, self._key)
        return UpstreamBroken("the engine failed; send the request again", detail=detail)

    async def _whole(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float | None = None
    ) -> bytes:
        """Return the body of the answer, which must be there within ``seconds``. Raises UpstreamError."""
        try:
            async with asyncio.timeout(seconds) if seconds else nullcontext():
                connection = await self._ask(method, path, body)
                try:
                    return await connection.whole()
                finally:
                    self._connections.release(connection)
        except TimeoutError as error:
            raise UpstreamSilent(SILENT) from error

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, *, streams: bool = False
    ) -> Connection:
        """Return the connection on which an answer of status 2xx begins. Raises UpstreamError."""
        connection = await self._connections.ask(
            method,
            path,
            None if body is None else orjson.dumps(body),
            headers=outgoing(),
            patience=self._timeouts.first_byte,
            streams=streams,
        )
        if connection.status < 300:
            return connection
        try:
            said = await connection.whole()
        finally:
            self._connections.release(connection)
        raise failure(
            connection.status,
            said,
            key=self._key,
            retry_after=connection.headers.get(b"retry-after", b"").decode("latin-1") or None,
            default_retry_after=self._retry_after,
        )


def _says(answer: dict[str, Any], part: str) -> bool:
    """Return whether ``answer`` has choices and each has a valid ``part``, a ``message`` or ``delta``."""
    choices = answer.get("choices")
    if answer.get("error") or not isinstance(choices, list) or not choices:
        return False
    for choice in choices:  # Called for each chunk of a stream; a generator would cost more than the check.
        if not isinstance(choice, dict) or not _is_said(choice.get(part), part):
            return False
    return True


def _is_said(said: Any, part: str) -> bool:
    if said is None:
        return part == "delta"
    if not isinstance(said, dict) or not isinstance(said.get("content"), TEXT_OR_NONE):
        return False
    calls = said.get("tool_calls")
    return not calls or (isinstance(calls, list) and all(map(_is_call, calls)))


def _is_call(call: Any) -> bool:
    function = call.get("function") or {} if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("arguments"), TEXT_OR_NONE)


def as_object(payload: bytes) -> dict[str, Any]:
    """Parse an answer. ``NaN`` and ``Infinity``, which some engines write as log-probabilities, become null.
    Raises UpstreamBroken: the answer is not a JSON object."""
    try:
        try:
            parsed = orjson.loads(payload)
        except orjson.JSONDecodeError:
            # orjson takes neither of them, nor half characters, which json would take
            parsed = orjson.loads(orjson.dumps(json.loads(payload, parse_constant=lambda _: None)))
    except (ValueError, TypeError, RecursionError) as error:
        raise UpstreamBroken("the engine's answer is not JSON; is engine_url an OpenAI server?") from error
    if not isinstance(parsed, dict):
        raise UpstreamBroken("the engine's answer is not a JSON object; is engine_url an OpenAI server?")
    return parsed
