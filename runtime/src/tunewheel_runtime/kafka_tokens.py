"""Tokens for authentication at Kafka (SASL OAUTHBEARER, RFC 7628), from a file or from a token endpoint.

aiokafka asks for a token when it opens a connection, and never renews it on that connection (no KIP-368). If
the broker closes a connection because its token expired, aiokafka connects again with a new token.
"""

# aiokafka has no type stubs, and its provider's token() is taken to return nothing.
from __future__ import annotations

import asyncio
import base64
import functools
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import structlog
from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError, SaslAuthenticationFailed
from pydantic import SecretStr

from tunewheel_runtime.kafka_settings import KafkaSettings

log = structlog.get_logger(__name__)

ATTEMPTS = 3
FIRST_WAIT_SECONDS = 0.5
REQUEST_SECONDS = 10.0
RENEWED_SECONDS_BEFORE = 60.0
"""Most seconds before its expiry at which a token is renewed. For a token that is valid for less than five
minutes, a fifth of its lifetime."""
LONGEST_ANSWER = 1 << 20
_TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenUnavailable(KafkaError):
    """There is no token to connect with. The message names the setting, and never the token or the secret.

    It is a ``KafkaError``, so that aiokafka's background tasks try again.
    """


class TokenFile(AbstractTokenProvider):
    """Reads the token for every connection from a file that something else renews."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def token(self) -> str:  # type: ignore[bad-override]
        """Return the token. Raises ``TokenUnavailable`` if the file has none."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> str:
        try:
            text = self._file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TokenUnavailable(f"sasl_oauth_token_file: {self._file} cannot be read: {error}") from error
        return _checked(text, f"sasl_oauth_token_file: {self._file}")


class ClientCredentials(AbstractTokenProvider):
    """Requests a token with the client's id and secret (RFC 6749 §4.4), and caches it until shortly before
    its expiry.

    A token without ``expires_in`` is not cached. All Kafka clients of a process may share one object.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: SecretStr,
        scope: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._url = url
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._clock = clock
        self._sleep = sleep
        # A thread of its own, so that a slow endpoint does not block the threads in which the service works.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="token")
        self._token = SecretStr("")
        self._renewed_at = self._expires_at = -1.0

    async def token(self) -> str:  # type: ignore[bad-override]
        """Return a valid token. Raises TokenUnavailable: the endpoint does not answer, or refuses the
        client."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._current)

    def _current(self) -> str:
        if self._clock() >= self._renewed_at:
            self._renew()
        return self._token.get_secret_value()

    def _renew(self) -> None:
        try:
            token, lifetime = self._ask_patiently()
        except TokenUnavailable as error:
            if self._clock() >= self._expires_at:
                raise
            log.warning("credentials_not_renewed", error=str(error))  # The old token is still valid.
            return
        now = self._clock()
        self._token, self._expires_at = SecretStr(token), now + lifetime
        self._renewed_at = self._expires_at - min(RENEWED_SECONDS_BEFORE, lifetime / 5)

    def _ask_patiently(self) -> tuple[str, float]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask()
            except urllib.error.HTTPError as error:
                reason = _refusal(error)
                if attempt == ATTEMPTS or not (error.code >= 500 or error.code == 429):
                    raise self._unavailable(reason) from None
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS:
                    raise self._unavailable(f"does not answer: {getattr(error, 'reason', error)}") from error
            self._sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _ask(self) -> tuple[str, float]:
        """Request a token; return it and its lifetime in seconds."""
        body = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        # RFC 6749 §2.3.1: id and secret are form-encoded before they become user and password.
        pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret.get_secret_value())}"
        headers = {
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Accept": "application/json",
        }
        request = urllib.request.Request(self._url, urlencode(body).encode(), headers)
        with _OPENER.open(request, timeout=REQUEST_SECONDS) as response:
            answer = _object(response.read(LONGEST_ANSWER))
        if not isinstance(token := answer.get("access_token"), str):
            raise self._unavailable("answers without an access_token")
        try:
            lifetime = max(0.0, float(answer.get("expires_in") or 0))
        except (TypeError, ValueError):
            lifetime = 0.0
        return _checked(token, f"sasl_oauth_token_url: {self._url}"), lifetime

    def _unavailable(self, reason: str) -> TokenUnavailable:
        return TokenUnavailable(f"sasl_oauth_token_url: {self._url} {reason}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, so that the secret is sent only to the address in the settings."""

    def redirect_request(self, *_: Any) -> None:  # type: ignore[bad-override]
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``; an empty one where ``data`` is something else."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(error: urllib.error.HTTPError) -> str:
    """Return why the endpoint refuses, with its error message (RFC 6749 §5.2) if it sent one."""
    with error:
        answer = _object(error.read(LONGEST_ANSWER))
    words = [str(answer[name])[:200] for name in ("error", "error_description") if answer.get(name)]
    return f"refuses with status {error.code}{': ' if words else ''}{', '.join(words)}"


def _checked(token: str, where: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise TokenUnavailable(
            f"{where} holds no token: it is empty, or not one word of printable characters"
        )
    return token


class _Hearing(conn.OAuthAuthenticator):
    """Detects that a broker refuses a token. aiokafka 0.14 takes every answer for success: its next request
    gets no answer, and the client starts without a broker."""

    async def step(self, payload: bytes | None) -> Any:
        if payload:  # A refusal is a JSON object, a success is empty (RFC 7628 §3.2.2).
            words = payload.decode("utf-8", "replace")
            raise SaslAuthenticationFailed(f"the broker does not accept the token: {words}")
        return await super().step(payload)


@functools.lru_cache(maxsize=8)
def _client_credentials(
    url: str, client_id: str, client_secret: SecretStr, scope: str | None
) -> ClientCredentials:
    """Return the provider for these arguments; cached, so that all clients of a process share one token."""
    return ClientCredentials(url, client_id, client_secret, scope)


def token_provider(settings: KafkaSettings) -> AbstractTokenProvider:
    """Return the token provider of ``settings``."""
    conn.OAuthAuthenticator = _Hearing
    if settings.sasl_oauth_token_file is not None:
        return TokenFile(settings.sasl_oauth_token_file)
    url, secret = settings.sasl_oauth_token_url, settings.sasl_oauth_client_secret
    assert url is not None
    assert secret is not None
    return _client_credentials(url, settings.sasl_oauth_client_id or "", secret, settings.sasl_oauth_scope)
