"""The signing keys of an OIDC issuer (JWKS). They are fetched when a token needs them, and cached."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel, ValidationError
from tunewheel_contracts.errors import TunewheelError

from tunewheel_runtime.admission import is_loopback
from tunewheel_runtime.identity.roles import IssuerAway

if TYPE_CHECKING:
    import httpx
    from joserfc.jwk import Key

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 300.0
"""Keys older than this are fetched again in the background; requests do not wait."""
STALE_SECONDS = 600.0
"""Keys older than this are used only after a new fetch. A key that the issuer withdrew is thus accepted for
at most this long."""
PAUSE_SECONDS = 10.0
"""Least time between the starts of two fetches, so that tokens with unknown keys cannot cause more
fetches."""
HOLD_SECONDS = 24 * 3600.0
"""While the issuer is unavailable, the keys that were fetched last are used for at most this long."""
FETCH_SECONDS = 5.0
MAX_BYTES = 256 * 1024
"""Most bytes of a discovery document or a key set."""
MAX_KEYS = 100
MIN_RSA_BITS = 2048
DISCOVERY = "/.well-known/openid-configuration"
WARNING = "oidc_issuer"

Warn = Callable[[str, str | None], None]


class _Unusable(TunewheelError):
    """The issuer's answer cannot be used; the message names the address and the fault."""


class _Discovery(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    """A key set (RFC 7517 §5). Each key is parsed separately, so that an invalid key does not hide the
    others."""

    keys: list[Any]


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Fetched:
    keys: tuple[Key, ...] = ()
    at: float = float("-inf")


class SigningKeys:
    """The keys of one issuer. They are fetched for the first token or by ``refresh``, never in the
    constructor.

    A token with a known key waits for a fetch only if the key is stale, and only once.
    """

    def __init__(
        self,
        issuer: str,
        *,
        jwks_url: str | None,
        cafile: Path | None,
        warn: Warn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``jwks_url`` None: the URL in the issuer's discovery document. ``warn`` is called when a fetch
        fails, and with None when one succeeds again."""
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._cafile = cafile
        self._warn = warn
        self._clock = clock
        self._fetched = _Fetched()
        self._next_fetch = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._away = False
        self._trouble: str | None = None

    async def find(self, kid: str | None, key_type: str) -> Key | None:
        """Return the key named ``kid`` of type ``key_type`` (a JWK's ``kty``); None: the issuer has none.

        For a token without ``kid`` the issuer's only key of the type is used (OpenID Connect Core §10.1).
        Raises IssuerAway: the key is unknown here, and the issuer's keys cannot be fetched.
        """
        key, fetching = self._held(kid, key_type), self.refresh()
        if key is None:
            fetching = self._begin()
        # While the issuer is unavailable, no request waits for a second fetch.
        if fetching is not None and (key is None or (self._age() > STALE_SECONDS and not self._away)):
            await asyncio.shield(fetching)
            key = self._held(kid, key_type)
        if key is None and (self._away or self._age() > HOLD_SECONDS):
            raise IssuerAway(
                f"the keys of the issuer of tokens, {self._issuer}, cannot be fetched; try again in "
                f"{PAUSE_SECONDS:.0f} seconds, or send an API key"
            )
        return key

    def refresh(self) -> asyncio.Task[None] | None:
        """Begin a fetch if the keys are too old; return its task, or None."""
        return self._begin() if self._age() > REFRESH_SECONDS else None

    def _begin(self) -> asyncio.Task[None] | None:
        """Return the running fetch, and start it if needed. None: the last fetch was less than
        ``PAUSE_SECONDS`` ago."""
        running = self._fetching
        # A task belongs to its event loop; another loop cannot wait for it.
        if running is not None and not running.done() and running.get_loop() is asyncio.get_running_loop():
            return running
        if self._clock() < self._next_fetch:
            return None
        self._next_fetch = self._clock() + PAUSE_SECONDS
        self._fetching = asyncio.create_task(self._fetch(), name="oidc-keys")
        return self._fetching

    def _age(self) -> float:
        return self._clock() - self._fetched.at

    def _held(self, kid: str | None, key_type: str) -> Key | None:
        if self._age() > HOLD_SECONDS:
            return None
        fitting = [key for key in self._fetched.keys if key.key_type == key_type]
        if kid is not None:
            fitting = [key for key in fitting if key.kid == kid]
        elif len(fitting) > 1:
            return None
        return fitting[0] if fitting else None

    async def _fetch(self) -> None:
        import httpx

        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = await self._ask()
        except TimeoutError:
            self._fail(f"does not answer within {FETCH_SECONDS:.0f} seconds")
        except (_Unusable, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            fix = "; name its authority in TUNEWHEEL_OIDC_CAFILE" if untrusted else ""
            self._fail((str(error) or repr(error)) + fix)
        else:
            if {key.kid for key in keys} != {key.kid for key in self._fetched.keys}:
                log.info("oidc_keys_read", issuer=self._issuer, keys=len(keys))
            self._fetched, self._away = _Fetched(keys, self._clock()), False
            self._tell(None if keys else "has no key that can sign; every token is refused")

    def _fail(self, trouble: str) -> None:
        self._away = True
        if self._fetched.keys:
            trouble += f"; the keys fetched before are used for {HOLD_SECONDS / 3600:.0f} hours"
        self._tell(trouble)

    async def _ask(self) -> tuple[Key, ...]:
        import httpx

        trust = await asyncio.to_thread(ssl.create_default_context, cafile=self._cafile)
        through_proxy = not is_loopback(urlsplit(self._issuer).hostname or "")
        async with httpx.AsyncClient(
            verify=trust, timeout=FETCH_SECONDS, follow_redirects=False, trust_env=through_proxy
        ) as client:
            url = self._jwks_url or await self._discover(client)
            entries = (await _get(client, url, _KeySet)).keys
        found = (_signing_key(entry) for entry in entries[:MAX_KEYS])
        return tuple(key for key in found if key is not None)

    async def _discover(self, client: httpx.AsyncClient) -> str:
        url = self._issuer.rstrip("/") + DISCOVERY
        document = await _get(client, url, _Discovery)
        if document.issuer != self._issuer:  # OpenID Connect Discovery §4.3
            raise _Unusable(f"{url} names another issuer; set TUNEWHEEL_OIDC_ISSUER to the 'issuer' in it")
        complaint = url_complaint(document.jwks_uri, beside=self._issuer)
        if complaint is not None:
            raise _Unusable(f"{url}: jwks_uri {complaint}")
        return document.jwks_uri

    def _tell(self, trouble: str | None) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        self._warn(WARNING, trouble and f"TUNEWHEEL_OIDC_ISSUER {self._issuer}: {trouble}")


def url_complaint(url: str, *, beside: str | None = None) -> str | None:
    """Return why signing keys may not be fetched from ``url``; None: they may. It must be https, or http on
    this machine.

    ``beside``: the address that named ``url``. An issuer on another machine may not name an address on this
    one.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is not a URL"
    if not host or parts.username is not None or parts.query or parts.fragment:
        return "must be a URL with only a host and a path, such as https://login.example.org/realms/main"
    if parts.scheme == "https":
        return None
    at_home = is_loopback(host) and (beside is None or is_loopback(urlsplit(beside).hostname or ""))
    return None if parts.scheme == "http" and at_home else "must begin with https://"


async def _get(client: httpx.AsyncClient, url: str, form: type[M]) -> M:
    """Return the JSON object at ``url``. Redirects are not followed, and compressed bodies are not
    accepted."""
    async with client.stream("GET", url, headers={"accept-encoding": "identity"}) as answer:
        if answer.is_redirect:
            raise _Unusable(f"{url} redirects to another address; name that address")
        if answer.status_code != 200:
            raise _Unusable(f"{url} answers with status {answer.status_code}")
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise _Unusable(f"{url} answers with more than {MAX_BYTES} bytes")
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        wanted = " and ".join(form.model_fields)
        raise _Unusable(f"{url} does not answer with a JSON object that has {wanted}") from error


def _signing_key(entry: Any) -> Key | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry, RSAKey

    if not isinstance(entry, dict):
        return None
    fields = cast(dict[str, Any], entry)
    if fields.get("kty") not in ("RSA", "EC", "OKP"):
        return None  # A symmetric key must not be published (RFC 8725 §3.5).
    try:
        if fields.get("use", "sig") != "sig" or "verify" not in fields.get("key_ops", ["verify"]):
            return None
        key = JWKRegistry.import_key(fields)
        weak = isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    return None if weak else key
