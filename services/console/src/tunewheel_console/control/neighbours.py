"""The services that the console asks over HTTP, as the caller of a request."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from fastapi import Request, Response
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.access import Credential, bearer_secret
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.tls import trust

from tunewheel_console.sessions import session_of

SECONDS = 30.0
"""The longest wait for an answer, unless a question says otherwise."""
Authorise = Callable[[Credential, str], str | None]
"""``Passes.authorization``: returns the header by which a service knows the person of a session."""


HANDED_ON = ("content-type", "www-authenticate", "retry-after")


def handed_on(answer: httpx.Response) -> Response:
    """Return a service's answer for the caller, whatever its status."""
    told = {name: answer.headers[name] for name in HANDED_ON if name in answer.headers}
    return Response(answer.content, answer.status_code, told)


def no_pass(_: Credential, __: str) -> None:
    return None


def client_at(url: str | None, cafile: Path | None, *, setting: str) -> httpx.AsyncClient | None:
    """Return a client of the API at ``url``; None: nobody named its address. ``setting``: the name of the
    setting of ``cafile``. Raises InvalidTls: the file of authorities cannot be used."""
    if url is None:
        return None
    return httpx.AsyncClient(base_url=url, verify=trust(cafile, setting=setting), timeout=SECONDS)


class Neighbour:
    """The API of another service."""

    def __init__(
        self, service: str, client: httpx.AsyncClient | None, authorise: Authorise = no_pass, *, setting: str
    ) -> None:
        """``client`` has the service's address; None: nobody named it in ``setting``."""
        self.service, self.client, self.setting = service, client, setting
        self._authorise = authorise

    async def send(self, request: Request, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer, whatever its status. The service knows the caller of ``request`` by the caller's
        own credentials, or by a pass for the person of the session. ``options``: as httpx has them. Raises
        Refused: 401, no pass can be made for a session; 503, nobody named the service's address.
        TransientError: the service does not answer."""
        if self.client is None:
            reason = f"the console knows no {self.service}; set {self.setting}"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, None, reason)
        try:
            return await self.client.request(method, path, headers=self._headers(request), **options)
        except httpx.HTTPError as error:
            reason = f"the {self.service} does not answer at {self.client.base_url} ({type(error).__name__})"
            raise TransientError(f"{reason}: start it, or correct {self.setting}") from error

    def _headers(self, request: Request) -> dict[str, str]:
        authorization, session = request.headers.get("authorization"), session_of(request.scope)
        # a proxy's own Authorization, by another scheme, may come beside a session
        if session is not None and not bearer_secret(authorization):
            authorization = self._authorise(session.credential, self.service)
        if authorization is None and "cookie" in request.headers:
            reason = (
                f"the {self.service} does not know this session: the console has no TUNEWHEEL_SIGNING_KEY; "
                "set it, or send a key or a token as Authorization"
            )
            raise Refused(HTTPStatus.UNAUTHORIZED, None, reason)
        return {} if authorization is None else {"authorization": authorization}
