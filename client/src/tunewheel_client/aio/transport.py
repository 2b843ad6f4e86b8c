"""Requests to the services of one wheel: who asks, what is tried again, and which errors answers become."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from tunewheel_client.aio.tokens import bearer_of
from tunewheel_client.errors import Away, ClientError, NoAddress, Refused, error_of
from tunewheel_client.trust import LOOPBACK, is_local, trusted

if TYPE_CHECKING:
    import httpx
    from pydantic import BaseModel

    from tunewheel_client.target import Target

    M = TypeVar("M", bound=BaseModel)

WAITS_SECONDS = (0.2, 0.6, 1.5)
"""Seconds to wait before each retry, where the service names no time."""
LONGEST_WAIT_SECONDS = 10.0
CONSOLE, GATEWAY, INGEST = "console", "gateway", "ingest"


class Transport:
    """Sends requests in the name of one login.

    A request is sent again after status 429 or 503, or if the connection failed, where this is harmless: it
    only reads, or it carries an ``Idempotency-Key``. A failed connection is tried again only within the time
    that one answer may take.
    """

    def __init__(
        self, target: Target, *, timeout_seconds: float, http: httpx.AsyncClient | None = None
    ) -> None:
        """``http``: the caller's own client, which is not closed here."""
        self.target = target
        self._timeout = timeout_seconds
        self._http = http
        self._is_own = http is None
        self._urls: dict[str, str] = {CONSOLE: target.context.url}
        told = target.context.addresses
        self.name_addresses(gateway=told.gateway, ingest=told.ingest)

    def name_addresses(self, **urls: str | None) -> None:
        """Use these addresses of services. A service whose address is None keeps its earlier address."""
        self._urls |= {service: url.rstrip("/") for service, url in urls.items() if url}

    async def aclose(self) -> None:
        if self._http is not None and self._is_own:
            await self._http.aclose()
            self._http = None

    async def read(self, model: type[M], /, *steps: str, **query: Any) -> M:
        """Return the console's answer at ``/v1/<steps…>``, as ``model``. Raises ``ClientError``."""
        return await self.request(model, "GET", *steps, query=query)

    async def request(
        self, model: type[M], method: str, *steps: str, service: str = CONSOLE, **options: Any
    ) -> M:
        """Return the answer at ``/v1/<steps…>`` as ``model``; see ``send``.

        Raises:
            Refused: what answers is no wheel, or a later one that means something else.
        """
        from pydantic import ValidationError

        answer = await self.send(method, *steps, service=service, **options)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            where = answer.url.copy_with(query=None)
            raise Refused(
                f"{service}: {where} does not answer as a wheel of this release does "
                f"({error.error_count()} fields of {model.__name__} are wrong); correct the address",
                status=answer.status_code,
                param="url",
            ) from None

    async def send(
        self,
        method: str,
        *steps: str,
        service: str = CONSOLE,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        is_harmless: bool | None = None,
        extra_seconds: float = 0.0,
        accepted: tuple[int, ...] = (),
        **options: Any,
    ) -> httpx.Response:
        """Return the answer at ``/v1/<steps…>``. ``options`` are httpx's, such as ``json``.

        Args:
            is_harmless: whether the request may be sent again after it may have arrived. Default: it may,
                because it gets an ``Idempotency-Key``.
            extra_seconds: how much longer than usual the answer may take.
            accepted: statuses of 400 and more that are no error.

        Raises:
            NotAllowed, NotFound, Conflict, Refused: the service refuses the request.
            Away: the service does not answer, or is busy.
        """
        import httpx

        sent = dict(headers or {})
        options["timeout"] = self._timeout + extra_seconds
        if method != "GET" and is_harmless is None:
            sent.setdefault("Idempotency-Key", uuid.uuid4().hex)
        begun_at = time.monotonic()
        for wait in (*WAITS_SECONDS, None):
            try:
                async with self._open(method, steps, service, query, sent, options) as answer:
                    await answer.aread()
                    if answer.is_success or answer.status_code in accepted:
                        return answer
                    error: ClientError = refusal_of(answer, service)
                pause = error.retry_after if isinstance(error, Away) else None
                if wait is None or answer.status_code not in (429, 503):
                    raise error
            except httpx.TransportError as failure:
                is_unsent = isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout)
                has_waited = time.monotonic() - begun_at >= options["timeout"]
                if wait is None or has_waited or (is_harmless is False and not is_unsent):
                    raise self._unreached(service, failure) from failure
                pause = None
            await asyncio.sleep(min(pause or wait, LONGEST_WAIT_SECONDS))
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def stream(
        self,
        *steps: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[httpx.Response]:
        """Open the console's answer at ``/v1/<steps…>`` without reading it. Raises as ``send``; nothing is
        tried again."""
        import httpx

        try:
            endless = {"timeout": httpx.Timeout(self._timeout, read=60.0)}
            async with self._open("GET", steps, CONSOLE, query, headers or {}, endless) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise refusal_of(answer, CONSOLE)
                yield answer
        except httpx.TransportError as failure:
            raise self._unreached(CONSOLE, failure) from failure

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        steps: tuple[str, ...],
        service: str,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> AsyncGenerator[httpx.Response]:
        if unnamed := {".", "..", ""} & {*steps}:  # URLs are normalised: another route would answer
            raise Refused(f"{min(unnamed)!r} names nothing; give a project's or an item's name", param="name")
        where = await self.url_of(service) + "/v1/" + "/".join(quote(step, safe="") for step in steps)
        client = self.http()
        bearer, self.target = await bearer_of(self.target, client)
        sent = {"Authorization": f"Bearer {bearer}", **headers} if bearer else dict(headers)
        params = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        async with client.stream(method, where, params=params, headers=sent, **options) as answer:
            yield answer

    def _require_as_safe(self, service: str, url: str | None) -> None:
        """Refuse an address without TLS that a console behind TLS tells: the key would go in clear text."""
        console = self._urls[CONSOLE]
        if url and console.startswith("https:") and url.startswith("http:") and not is_local(url):
            raise NoAddress(
                f"{service}: {console} names {url}, which has no TLS, and the key would go there in clear "
                f"text; correct TUNEWHEEL_PUBLIC_{service.upper()}_URL there, or give the client the address",
                param=service,
            )

    async def url_of(self, service: str) -> str:
        """Return the address of a service. The console is asked once for what the context does not say.

        Raises:
            NoAddress: the wheel has no such address.
        """
        if service not in self._urls:
            from tunewheel_contracts.api.identity import Me

            told = (await self.read(Me, "me")).addresses
            found = {GATEWAY: told.gateway, INGEST: told.ingest}
            for name, url in found.items():
                self._require_as_safe(name, url)
            self.name_addresses(**found | self._urls)
        if service not in self._urls:
            raise NoAddress(
                f"{service}: the console at {self._urls[CONSOLE]} does not name its address; set "
                f"TUNEWHEEL_PUBLIC_{service.upper()}_URL there, or give it to the client",
                param=service,
            )
        return self._urls[service]

    def http(self) -> httpx.AsyncClient:
        import httpx

        if self._http is None:
            direct: dict[str, None] = dict.fromkeys(LOOPBACK)
            self._http = httpx.AsyncClient(verify=trusted(), timeout=self._timeout, mounts=direct)
        return self._http

    def _unreached(self, service: str, failure: Exception) -> Away:
        url = self._urls.get(service, self._urls[CONSOLE])
        return Away(f"{service}: nothing answers at {url} ({failure or type(failure).__name__})")


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def refusal_of(answer: httpx.Response, service: str) -> ClientError:
    """Return the error that an answer without success stands for."""
    if answer.is_redirect:
        where = answer.headers.get("location", "elsewhere")[:200]
        return Refused(f"{service}: redirects to {where}; give the address itself", param="url")
    try:
        body: Any = answer.json()
    except ValueError:
        body = answer.text
    return error_of(answer.status_code, body, answer.headers, service=service)
