"""The protocol of vLLM and of ``tunewheel-engine``: OpenAI's chat API, and vLLM's adapter endpoints.

Source: vLLM, "OpenAI-compatible server" and "LoRA adapters" (runtime loading).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from tunewheel_runtime.descriptors import most_requests
from tunewheel_runtime.telemetry import carried

from tunewheel_serve_gateway.judged import EngineIdentity, identity_of
from tunewheel_serve_gateway.upstream.protocol import (
    AT_HAND,
    Chunk,
    Timeouts,
    UpstreamAway,
    UpstreamBroken,
    UpstreamError,
    UpstreamSilent,
    failure,
    lost,
    message_of,
    says_something,
    unreachable,
)
from tunewheel_serve_gateway.upstream.sse import DONE, LONGEST_ANSWER, read_data

TEXT_OR_NONE = (str, type(None))
CONTROL_CONNECTIONS = 16
"""Connections beside those of requests in flight: to list, load and unload models, and for shadow copies."""
KEEPALIVE_SECONDS = 4.0
"""Below uvicorn's five: a connection is never reused while the engine is closing it."""


class OpenAiUpstream:
    """One engine behind ``url``."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeouts: Timeouts | None = None,
        retry_after: int = 2,
    ) -> None:
        """``tls``: the trusted certificate authorities; None: the system's."""
        self._url = url.rstrip("/")
        self._tls = tls
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._timeouts = given = timeouts or Timeouts()
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=given.connect, sock_read=given.first_byte
        )
        self._control = aiohttp.ClientTimeout(total=given.control, sock_connect=given.connect)
        self._retry_after = str(retry_after)
        self._opened: aiohttp.ClientSession | None = None
        self.identity = EngineIdentity()

    @property
    def _session(self) -> aiohttp.ClientSession:
        # Created on first use, because a session belongs to the running event loop.
        if self._opened is None:
            connector = aiohttp.TCPConnector(
                limit=most_requests() + CONTROL_CONNECTIONS,
                keepalive_timeout=KEEPALIVE_SECONDS,
                ssl=self._tls or True,
            )
            # A balancer's cookie would pin all requests to one engine.
            self._opened = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._opened

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        async with self._answer("POST", "/v1/chat/completions", body) as response:
            answer = as_object(await _whole(response))
        if not _says(answer, "message"):
            raise self._no_answer(answer)
        return answer

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        async with self._answer("POST", "/v1/chat/completions", body) as response:
            begun = speaks = False
            async for payload, more in read_data(response.content.iter_any()):
                if payload == DONE:
                    if not begun:
                        raise UpstreamBroken("the engine ended its answer before it began; try again")
                    return
                chunk = as_object(payload)
                if _says(chunk, "delta"):
                    begun = True
                elif chunk.get("choices") != [] or chunk.get("error"):  # The chunk with usage has no choice.
                    raise self._no_answer(chunk)
                if begun and not speaks and says_something(chunk):
                    speaks = True
                    self._expect_tokens(response)
                if begun:
                    if more:
                        chunk[AT_HAND] = True
                    yield chunk
        raise UpstreamBroken("the engine broke off its answer; send the request again")

    def _expect_tokens(self, response: aiohttp.ClientResponse) -> None:
        """Apply the time-out between tokens to the rest of a stream."""
        connection, seconds = response.connection, self._timeouts.between_tokens
        if (
            seconds != self._timeouts.first_byte
            and connection is not None
            and connection.protocol is not None
        ):
            connection.protocol.read_timeout = seconds
            connection.protocol.start_timeout()

    async def list_models(self) -> set[str] | None:
        answer = await self.read("/v1/models")
        models = answer.get("data")
        if not isinstance(models, list):
            raise self._no_answer(answer)
        self.identity = identity_of(models)
        return {str(model["id"]) for model in models if isinstance(model, dict) and "id" in model}

    async def read(self, path: str) -> dict[str, Any]:
        """Return the JSON object that the engine serves at ``path``."""
        async with self._answer("GET", path, patience=self._control) as response:
            return as_object(await _whole(response))

    async def load_adapter(self, name: str, path: Path) -> None:
        await self._change("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})

    async def unload_adapter(self, name: str) -> None:
        await self._change("/v1/unload_lora_adapter", {"lora_name": name}, patience=self._control)

    async def _change(
        self, path: str, body: dict[str, Any], *, patience: aiohttp.ClientTimeout | None = None
    ) -> None:
        async with self._answer("POST", path, body, patience=patience) as response:
            answer = await _whole(response)
        if answer.startswith(b"{") and (said := as_object(answer)).get("error"):
            raise self._no_answer(said)  # A success is answered in plain text, not in JSON.

    def _no_answer(self, answer: dict[str, Any]) -> UpstreamError:
        """Return the error for an answer of status 200 that holds no completion. Proxies answer so, and
        engines after a stream has begun."""
        error = answer.get("error") or answer
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            body, retry_after = orjson.dumps(answer), self._retry_after
            return failure(code, body, retry_after=None, default_retry_after=retry_after)
        reason = message_of(answer) or "the answer has no completion; is engine_url an OpenAI server?"
        return UpstreamBroken("the engine failed; send the request again", detail=reason)

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        patience: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        data = orjson.dumps(body) if body is not None else None
        try:
            async with self._session.request(
                method,
                self._url + path,
                data=data,
                timeout=patience or self._timeout,
                headers=carried(),
                allow_redirects=False,  # A redirect could send the conversation to any host.
            ) as response:
                if response.status >= 300:
                    raise failure(
                        response.status,
                        await _whole(response),
                        retry_after=response.headers.get("retry-after"),
                        default_retry_after=self._retry_after,
                    )
                yield response
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise self._away(error) from error
            raise UpstreamSilent(
                "the engine did not answer in time; try again, or send a shorter request"
            ) from error
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError, HttpProcessingError) as error:
            raise UpstreamBroken("the engine broke off its answer; send the request again") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> UpstreamAway:
        if not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return lost(error, self._retry_after)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = (
                f"the certificate of the inference engine is not trusted ({error.certificate_error}); "
                "name the PEM file of its authority in TUNEWHEEL_ENGINE_CAFILE"
            )
            return UpstreamAway(reason, retry_after=self._retry_after)
        return unreachable(error, self._retry_after)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer. Raises UpstreamBroken: it has more than ``LONGEST_ANSWER`` bytes."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LONGEST_ANSWER:
            reason = f"the engine's answer is over {LONGEST_ANSWER} bytes; ask for fewer tokens"
            raise UpstreamBroken(reason)
    return b"".join(parts)


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
