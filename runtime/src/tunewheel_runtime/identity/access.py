"""From a request, or from an event, to who is behind it and what they may do now."""

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
from tunewheel_runtime.file_marks import mark_of
from tunewheel_runtime.identity.keys import InvalidKeys, KeyRing, fingerprint_of, read_keys, sum_of
from tunewheel_runtime.identity.roles import ANYBODY, NOBODY, Caller, NotAuthenticated, NotAuthorised, Role
from tunewheel_runtime.identity.tokens import Tokens, is_token, oidc_complaint
from tunewheel_runtime.settings import HttpSettings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""The file of keys is compared with what was read of it this often, at most."""
WARNING = "api_keys"

Warn = Callable[[str, str | None], None]


class NoIdentity(TunewheelError):
    """The service must not start, since it could not tell who calls; the message names the setting."""


class Credential(Strict):
    """What somebody showed to say who they are, without the secret: a browser's session lasts as long."""

    principal: Principal
    key_fingerprint: str | None = None
    """Of the API key; None: a token."""
    expires_at: float | None = None
    """When the token ends, in seconds since 1970."""


class Access:
    """What the settings say of identity. Keys that were added, changed or taken away count within
    ``LOOK_SECONDS`` of a change of their file, and the time to read it."""

    def __init__(
        self, settings: HttpSettings, *, warn: Warn, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``warn`` is told when the file has become unreadable, and with None when it is well again; the
        keys read last hold until then. A file that is wrong from the beginning is refused by
        ``require_identity``."""
        self._settings = settings
        self._path = settings.api_keys_file
        self._open = settings.identity == "open"
        self._warn = warn
        self._clock = clock
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
        """Whether everybody is let in."""
        return self._open

    def require_identity(self, service: str, *, host: str) -> None:
        """Refuse to listen on ``host`` where nobody would ask who calls; warn where everybody is let in.

        Raises:
            NoIdentity
        """
        complaint = self._unreadable or oidc_complaint(self._settings)
        if complaint is not None:
            raise NoIdentity(complaint)
        if not self._open and self._path is None:
            raise NoIdentity(
                f"{service} has nothing to tell callers by: name a file of keys, and of what an issuer's "
                "groups may do, in TUNEWHEEL_API_KEYS_FILE, or set TUNEWHEEL_IDENTITY=open to let everybody "
                "on this machine do everything"
            )
        if self._open and not is_loopback(host):
            raise NoIdentity(
                f"TUNEWHEEL_HTTP_HOST {host} is open to the network, and by TUNEWHEEL_IDENTITY=open "
                f"{service} does not ask who calls; listen on 127.0.0.1, or set TUNEWHEEL_IDENTITY=required "
                "and name a file of keys in TUNEWHEEL_API_KEYS_FILE"
            )
        if self._open:
            log.warning("identity_open", service=service, mend="TUNEWHEEL_API_KEYS_FILE")

    async def identify(self, authorization: str | None) -> Caller:
        """Return who sends ``Authorization: Bearer <key or token>``.

        Raises:
            NotAuthenticated: no key or token, or one that does not count.
        """
        await self.refresh()
        try:
            principal, _ = await self._principal(bearer_secret(authorization))
        except NotAuthenticated:
            if self._open:
                return ANYBODY
            raise
        return self._ring.caller(principal)

    async def credential(self, authorization: str | None) -> Credential:
        """Return what ``Authorization: Bearer <key or token>`` shows, also where identity is open.

        Raises:
            NotAuthenticated: no key or token, or one that does not count.
        """
        await self.refresh()
        secret = bearer_secret(authorization)
        principal, expires_at = await self._principal(secret)
        fingerprint = fingerprint_of(sum_of(secret)) if principal.issuer is None else None
        return Credential(principal=principal, key_fingerprint=fingerprint, expires_at=expires_at)

    async def _principal(self, secret: str) -> tuple[Principal, float | None]:
        """Return whose key or token this is, and when a token ends."""
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
            raise NotAuthenticated("this is a token, and tokens are not taken here; send an API key")
        return await self._tokens.read(secret, groups=self._ring.groups)

    async def caller_with(self, credential: Credential) -> Caller:
        """Return what somebody may do now who showed ``credential`` earlier.

        Raises:
            NotAuthenticated: the key was changed or taken away, or the token has ended.
        """
        await self.refresh()
        fingerprint = credential.key_fingerprint
        if fingerprint is not None and not self._ring.holds(credential.principal.name, fingerprint):
            raise NotAuthenticated("this API key was changed or taken away; ask for a new one")
        if credential.expires_at is not None and credential.expires_at <= time.time():
            raise NotAuthenticated("this token has ended; get a new one")
        return await self.caller_of(credential.principal)

    async def caller_of(self, principal: Principal | None) -> Caller:
        """Return what ``principal`` may do now, ``NOBODY`` for None unless identity is open. Groups count
        that the issuer set here vouches for: an event could name any other."""
        if self._open:
            return ANYBODY
        await self.refresh()
        if principal is None:
            return NOBODY
        return self._ring.caller(principal) if self._trusts(principal) else Caller(principal, ())

    def _trusts(self, principal: Principal) -> bool:
        return principal.issuer is None or principal.issuer == self._settings.oidc_issuer

    async def require(self, principal: Principal | None, role: Role, project: str, *, field: str) -> None:
        """Refuse an event whose ``field`` names a principal without ``role`` in ``project``.

        Raises:
            InvalidEvent
        """
        caller = await self.caller_of(principal)
        if principal is None and not caller.may(role, project):
            raise InvalidEvent(
                field=field, reason=f"is missing; send it by a door that asks who calls, as a {role.value}"
            )
        if principal is not None and not self._open and not self._trusts(principal):
            raise InvalidEvent(
                field=f"{field}.issuer",
                reason="is not the issuer that this service trusts; set TUNEWHEEL_OIDC_ISSUER here as at the "
                "door that took the event",
            )
        try:
            caller.require(role, project)
        except NotAuthorised as error:
            raise InvalidEvent(field=field, reason=str(error)) from error

    def begin(self) -> asyncio.Task[None] | None:
        """Ask the issuer of tokens for its keys, so that trouble is told before the first caller; see
        ``SigningKeys.refresh``."""
        return self._tokens.keys.refresh() if self._tokens is not None else None

    async def refresh(self) -> None:
        """Read the file of keys anew where it has changed. Whoever comes meanwhile goes on with the keys read
        before."""
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
        """Read the file; return False where it could not be opened, which may pass without a change of it."""
        try:
            self._ring = await asyncio.to_thread(read_keys, path)
        except InvalidKeys as error:
            if str(error) != self._unreadable:
                self._warn(WARNING, f"{error}; the keys read before still hold")
            self._unreadable = str(error)
            return not isinstance(error.__cause__, OSError)
        self._warn(WARNING, None)
        self._unreadable = None
        log.info("api_keys_read", path=str(path), keys=len(self._ring.own))
        return True


def bearer_secret(authorization: str | None) -> str:
    """Return the key or token of an ``Authorization`` header; empty without one."""
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
