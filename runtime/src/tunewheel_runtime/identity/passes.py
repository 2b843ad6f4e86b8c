"""Passes: by a pass the console asks another service as the person of a browser's session.

A session keeps no key or token that could be handed on. The console signs which credential began the session,
for one service and ``SECONDS``. The other service looks up itself what the credential's holder may do, so a
pass gives no right that the key or token would not give. It cannot be changed into another credential: a
login link, for example, needs the key.

``Authorization: Tunewheel-Pass <compact JWS>`` (RFC 7515 §7.1), by Ed25519 with the console's key for
commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.fields import Strict

from tunewheel_runtime.identity.access import Credential
from tunewheel_runtime.identity.roles import InvalidToken
from tunewheel_runtime.identity.signatures import Signatures

SCHEME = "Tunewheel-Pass"
TYPE = "tunewheel-pass"
"""``typ`` of the JWS's header, so that no signature of an event is a pass."""
SIGNER = "console"
SECONDS = 60.0
LEEWAY_SECONDS = 30.0
"""Tolerated difference between the clocks of two machines."""


class _Claims(Strict):
    audience: str
    """The service that may take it."""
    expires_at: float
    """In seconds since 1970."""
    credential: Credential


class Passes:
    """Makes the passes of one service, and reads those for it."""

    def __init__(
        self, service: str, signatures: Signatures, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._service = service
        self._signatures = signatures
        self._clock = clock

    def authorization(self, credential: Credential, audience: str) -> str | None:
        """Return the value of ``Authorization`` for requests to the service ``audience``; None: this service
        has no key to sign with."""
        claims = _Claims(audience=audience, expires_at=self._clock() + SECONDS, credential=credential)
        signed = self._signatures.signature(claims.model_dump_json().encode(), typ=TYPE)
        return None if signed is None else f"{SCHEME} {signed.decode()}"

    def read(self, authorization: str | None) -> Credential | None:
        """Return the credential behind a pass; None: ``authorization`` is none. Raises InvalidToken: the pass
        has expired, is for another service, or the console did not sign it."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != SCHEME.lower():
            return None
        try:
            found = self._signatures.verified(token.strip().encode("ascii", "replace"))
        except InvalidEvent as error:
            raise InvalidToken(f"this pass {error.reason}") from None
        entry = found.signer.entry
        if found.type != TYPE or entry.service != SIGNER or entry.retired is not None:
            raise InvalidToken("this is no pass that the console signed with a key in use")
        try:
            claims = _Claims.model_validate_json(found.payload)
        except ValidationError:
            raise InvalidToken("this pass is by another release of the console; upgrade both") from None
        if claims.audience != self._service:
            raise InvalidToken(f"this pass is for {claims.audience}")
        if claims.expires_at + LEEWAY_SECONDS <= self._clock():
            raise InvalidToken("this pass has expired; the console makes a new one for each request")
        return claims.credential
