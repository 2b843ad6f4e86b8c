"""Finds the caller behind a request or an event, with the caller's present roles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.fields import Strict
from tunewheel_contracts.principal import Principal

from tunewheel_runtime.admission import is_loopback
from tunewheel_runtime.files import mark_of
from tunewheel_runtime.identity.keys import InvalidKeys, KeyRing, fingerprint_of, read_keys, sum_of
from tunewheel_runtime.identity.roles import ANYBODY, NOBODY, Caller, NotAuthenticated, NotAuthorised, Role
from tunewheel_runtime.identity.tokens import Tokens, is_token, oidc_complaint
from tunewheel_runtime.settings import HttpSettings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Least time, in seconds, between two checks whether the file of keys has changed."""
WARNING = "api_keys"

Warn = Callable[[str, str | None], None]


class NoIdentity(TunewheelError):
    """The service must not start, because it could not identify callers; the message names the setting."""


class Credential(Strict):
    """A key or token that a caller has sent, without the secret. A browser's session lasts as long as it is
    valid."""

    principal: Principal
    key_fingerprint: str | None = None
    """Fingerprint of the API key; None: the credential is a token."""
    expires_at: float | None = None
    """Expiry of the token, in Unix seconds."""


def _no_pass(_: str | None) -> Credential | None:
    return None


class Access:
    """Identifies callers by the settings. A change of the file of keys takes effect within ``LOOK_SECONDS``,
    plus the time to read the file."""

    def __init__(
        self, settings: HttpSettings, *, warn: Warn, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``warn`` is called when the file becomes invalid, and with None when it is valid again. Until then
        the keys that were read last stay in force. A file that is invalid from the beginning is refused by
        ``require_identity``."""
        self._settings = settings
        self._path = settings.api_keys_file
        self._open = settings.identity == "open"
        self._warn = warn
        self._clock = clock
        self.read_pass: Callable[[str | None], Credential | None] = _no_pass
        """Returns the credential behind a pass in ``Authorization``; see ``passes``."""
        self._reading = False
        self._tokens = Tokens(settings, warn=warn, clock=clock) if settings.oidc_issuer else None
        self._next_look = clock() + LOOK_SECONDS
        self._seen = () if self._path is None else mark_of(self._path)
        self._ring, self._unreadable = KeyRing(), None
        try:
            if self._path is not None:
                self._ring = read_keys(self._path)
        except InvalidKeys as error:
            self._unreadable = str(error)

    @property
    def is_open(self) -> bool:
        """Whether callers are not identified at all (``TUNEWHEEL_IDENTITY=open``)."""
        return self._open

    def require_identity(self, service: str, *, host: str) -> None:
        """Refuse to listen on ``host`` if callers cannot be identified. Warn if identity is open. Raises
        NoIdentity."""
        complaint = self._unreadable or oidc_complaint(self._settings)
        if complaint is not None:
            raise NoIdentity(complaint)
        if not self._open and self._path is None:
            raise NoIdentity(
                f"{service} cannot identify callers: name a file of keys (and of the rights of an issuer's "
                "groups) in TUNEWHEEL_API_KEYS_FILE, or set TUNEWHEEL_IDENTITY=open to let everybody on this "
                "machine do everything"
            )
        if self._open and not is_loopback(host):
            raise NoIdentity(
                f"TUNEWHEEL_HTTP_HOST {host} is open to the network, and with TUNEWHEEL_IDENTITY=open "
                f"{service} does not identify callers; listen on 127.0.0.1, or set "
                "TUNEWHEEL_IDENTITY=required and name a file of keys in TUNEWHEEL_API_KEYS_FILE"
            )
        if self._open:
            log.warning("identity_open", service=service, mend="TUNEWHEEL_API_KEYS_FILE")

    async def identify(self, authorization: str | None) -> Caller:
        """Return the caller who sends ``Authorization: Bearer <key or token>``, or for whom the console sends
        a pass. Raises NotAuthenticated: the key, token or pass is missing or not valid."""
        await self.refresh()
        try:
            if (credential := self.read_pass(authorization)) is not None:
                return await self.caller_with(credential)
            principal, _ = await self._principal(bearer_secret(authorization))
        except NotAuthenticated:
            if self._open:
                return ANYBODY
            raise
        return self._ring.caller(principal)

    async def credential(self, authorization: str | None) -> Credential:
        """Return the credential in ``Authorization: Bearer <key or token>``, also where identity is open.
        Raises NotAuthenticated: the key or token is missing or not valid."""
        await self.refresh()
        secret = bearer_secret(authorization)
        principal, expires_at = await self._principal(secret)
        fingerprint = fingerprint_of(sum_of(secret)) if principal.issuer is None else None
        return Credential(principal=principal, key_fingerprint=fingerprint, expires_at=expires_at)

    async def _principal(self, secret: str) -> tuple[Principal, float | None]:
        """Return the owner of this key or token, and the expiry of a token."""
        if not secret:
            wanted = "API key or token" if self._tokens else "API key"
            raise NotAuthenticated(
                f"no {wanted}; send 'Authorization: Bearer <{wanted.removeprefix('API ')}>'"
            )
        principal = self._ring.find(secret)
        if principal is not None:
            return principal, None
        if not is_token(secret):
            raise NotAuthenticated("this API key is unknown; ask for a new one")
        if self._tokens is None:
            raise NotAuthenticated("this is a token, and tokens are not accepted here; send an API key")
        return await self._tokens.read(secret, groups=self._ring.groups)

    async def caller_with(self, credential: Credential) -> Caller:
        """Return the caller of an earlier ``credential``, with the present roles. Raises NotAuthenticated:
        the key was changed or removed, or the token has expired."""
        await self.refresh()
        fingerprint = credential.key_fingerprint
        if fingerprint is not None and not self._ring.holds(credential.principal.name, fingerprint):
            raise NotAuthenticated("this API key was changed or removed; ask for a new one")
        if credential.expires_at is not None and credential.expires_at <= time.time():
            raise NotAuthenticated("this token has expired; get a new one")
        return await self.caller_of(credential.principal)

    async def caller_of(self, principal: Principal | None) -> Caller:
        """Return the caller for ``principal``, with the present roles. None gives ``NOBODY``, unless identity
        is open. The principal's groups count only if the issuer is the one in the settings, because an event
        could name any issuer."""
        if self._open:
            return ANYBODY
        await self.refresh()
        if principal is None:
            return NOBODY
        return self._ring.caller(principal) if self._trusts(principal) else Caller(principal, ())

    def _trusts(self, principal: Principal) -> bool:
        return principal.issuer is None or principal.issuer == self._settings.oidc_issuer

    async def require(self, principal: Principal | None, role: Role, project: str, *, field: str) -> None:
        """Refuse an event whose principal, in ``field``, lacks ``role`` in ``project``. Raises
        InvalidEvent."""
        caller = await self.caller_of(principal)
        if principal is None and not caller.may(role, project):
            raise InvalidEvent(
                field=field,
                reason=f"is missing; send it through an API that identifies callers, as a {role.value}",
            )
        if principal is not None and not self._open and not self._trusts(principal):
            raise InvalidEvent(
                field=f"{field}.issuer",
                reason="is not the issuer that this service trusts; set TUNEWHEEL_OIDC_ISSUER here as at the "
                "service that accepted the event",
            )
        try:
            caller.require(role, project)
        except NotAuthorised as error:
            raise InvalidEvent(field=field, reason=str(error)) from error

    def begin(self) -> asyncio.Task[None] | None:
        """Fetch the keys of the issuer of tokens, so that a problem is reported before the first caller; see
        ``SigningKeys.refresh``."""
        return self._tokens.keys.refresh() if self._tokens is not None else None

    async def refresh(self) -> None:
        """Read the file of keys again if it has changed. Meanwhile the keys that were read before stay in
        force."""
        if self._path is None or self._reading or self._clock() < self._next_look:
            return
        self._reading = True
        try:
            mark = mark_of(self._path)
            if mark != self._seen and await self._read(self._path):
                self._seen = mark
            self._next_look = self._clock() + LOOK_SECONDS
        finally:
            self._reading = False

    async def _read(self, path: Path) -> bool:
        """Read the file. Return False if it could not be opened; that may pass without a change of the
        file."""
        try:
            self._ring = await asyncio.to_thread(read_keys, path)
        except InvalidKeys as error:
            if str(error) != self._unreadable:
                self._warn(WARNING, f"{error}; the keys read before stay in force")
            self._unreadable = str(error)
            return not isinstance(error.__cause__, OSError)
        self._warn(WARNING, None)
        self._unreadable = None
        log.info("api_keys_read", path=str(path), keys=len(self._ring.own))
        return True


def bearer_secret(authorization: str | None) -> str:
    """Return the key or token in an ``Authorization`` header; "" where there is none."""
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
