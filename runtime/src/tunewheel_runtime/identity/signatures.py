"""Signs the commands that a service publishes, and checks the signatures of those that it reads.

A command acts in the name of a person, whom the service that published it has identified. Its signature
proves that this service published it: a compact JWS (RFC 7515 §7.1) by Ed25519 over the event's id, its type,
and the SHA-256 of the canonical JSON of its data without the signature.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import TypeAdapter
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import E, Envelope
from tunewheel_contracts.identity import canonical_json, content_sha256
from tunewheel_contracts.topics import BY_NAME, TopicSpec

from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.files import mark_of
from tunewheel_runtime.identity.access import NoIdentity
from tunewheel_runtime.identity.command_keys import (
    CURVE,
    SIGNERS,
    InvalidSigningKey,
    Signer,
    read_private_key,
    read_public_keys,
)
from tunewheel_runtime.identity.keys import single_keys
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import Place, Span, ends
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

log = structlog.get_logger(__name__)
FIELD = "signature"
FOLDER = "commands/signed-from"
Look = Callable[[list[str]], Awaitable[Mapping[Place, Span]]]
_OBJECT = TypeAdapter(dict[str, Any])


class Signatures:
    """The signatures of one service's commands. Where identity is open, no signature is asked for."""

    def __init__(self, service: str, settings: ServiceSettings, store: ObjectStore) -> None:
        self._service = service
        self._settings = settings
        self._store = store
        self._asks = settings.identity != "open"
        self._seen: tuple[int, ...] | None = None
        self._signers: Mapping[str, Signer] = {}
        self._from: dict[str, dict[str, int]] = {}
        """By topic and partition, the offset from which commands must be signed."""
        self._key: OKPKey | None = None
        self._unusable: str | None = None
        try:
            if settings.signing_key is not None:
                self._key = read_private_key(settings.signing_key.get_secret_value())
            self._read()
        except InvalidSigningKey as error:
            self._unusable = str(error)

    def _read(self) -> None:
        path = self._settings.signing_keys_file
        mark = () if path is None else mark_of(path)
        if path is not None and mark != self._seen:
            self._signers, self._seen = read_public_keys(path), mark

    def require_keys(self) -> None:
        """Refuse to start without the keys that this service's commands need.

        Raises:
            NoIdentity
        """
        if not self._asks:
            return
        if self._unusable is not None:
            raise NoIdentity(self._unusable)
        if self._settings.signing_keys_file is None:
            raise NoIdentity(
                f"{self._service} cannot tell who published a command: name the file of public keys in "
                "TUNEWHEEL_SIGNING_KEYS_FILE (`tunewheel admin signing-keys add` makes it), or set "
                "TUNEWHEEL_IDENTITY=open to obey everybody on this machine"
            )
        if self._service not in SIGNERS:
            return
        if self._key is None:
            raise NoIdentity(
                f"{self._service} cannot sign the commands that it publishes: set TUNEWHEEL_SIGNING_KEY to "
                f"its private key; `tunewheel admin signing-keys add {self._service}` makes one"
            )
        own = self._signers.get(self._key.kid or "")
        if own is None or own.service != self._service or own.key.thumbprint() != self._key.thumbprint():
            raise NoIdentity(
                f"TUNEWHEEL_SIGNING_KEY: {self._settings.signing_keys_file} does not have the key "
                f"{self._key.kid} of {self._service}, so nobody would obey its commands; add its public part"
            )

    async def begin(self, topics: Iterable[TopicSpec], look: Look | None = None) -> None:
        """Learn from which offsets on commands must be signed. The first service that starts stores the ends
        of the topics: earlier releases wrote the commands before them, without signatures. ``look``: returns
        where topics begin and end; None: asks the broker.

        Raises:
            TransientError: the store or the broker is away.
        """
        names = [topic.name for topic in topics if topic.is_command]
        if self._asks and names:
            spans = await (look or partial(ends, client_options(self._settings)))(names)
            await asyncio.gather(*(self._begin(name, spans) for name in names))

    async def _begin(self, topic: str, spans: Mapping[Place, Span]) -> None:
        path = f"{FOLDER}/{topic}.json"
        now = {str(number): span.end for (name, number), span in sorted(spans.items()) if name == topic}
        stored: dict[str, int] = json.loads(await self._store.first(path, json.dumps(now).encode()))
        self._from[topic] = {number: min(offset, now.get(number, 0)) for number, offset in stored.items()}
        if self._from[topic] != stored:
            # The topic was made anew: its offsets come again, and an earlier release wrote none of them.
            log.warning("topic_of_commands_made_anew", topic=topic, signed_from=self._from[topic])
            await self._store.replace(path, json.dumps(self._from[topic]).encode())

    def predates(self, position: Position) -> bool:
        """Return whether a command is older than signatures, so that it counts without one."""
        return position.offset < self._from.get(position.topic, {}).get(str(position.partition), 0)

    def sign(self, event: Envelope[E]) -> Envelope[E]:
        """Return the event with this service's signature if it is a command and the service has a key."""
        topic = BY_NAME.get(event.data.type)
        if topic is None or not topic.is_command:
            return event
        bare = event.data.model_copy(update={FIELD: None})
        if self._key is None:
            return replace(event, data=bare)
        from joserfc import jws

        header = {"alg": CURVE, "kid": self._key.kid}
        claims = _claims(event, bare.model_dump_json().encode())
        signature = jws.serialize_compact(header, canonical_json(claims), self._key, algorithms=[CURVE])
        return replace(event, data=bare.model_copy(update={FIELD: signature}))

    def check(self, topic: TopicSpec, event: Envelope[Any], record: Undecoded) -> None:
        """Refuse a command that no service signed that may publish it. The ``record`` is needed because the
        decoded event lacks what a newer release wrote.

        Raises:
            InvalidEvent: with the field ``signature``.
        """
        if not self._asks or not topic.is_command:
            return
        signature: str | None = event.data.signature
        if signature is not None:
            self._verify(topic, event, record, signature)
        elif not self.predates(record.position):
            raise _refusal("is missing; send the command through the API of the console, which signs it")

    def _verify(self, topic: TopicSpec, event: Envelope[Any], record: Undecoded, signature: str) -> None:
        from joserfc import jws
        from joserfc.errors import JoseError

        try:
            parts = jws.extract_compact(signature.encode("ascii"))
            header = _OBJECT.validate_python(parts.protected)  # joserfc would also accept a list.
        except (JoseError, ValueError, TypeError, RecursionError):
            raise _refusal("is not a compact JWS (RFC 7515 §7.1)") from None
        if header.get("alg") != CURVE:
            raise _refusal(f"is not by {CURVE}")
        signer = self._signer(header.get("kid"))
        if signer is None:
            raise _refusal(
                "is by a key that TUNEWHEEL_SIGNING_KEYS_FILE lacks; add the public key of the service that "
                "published the command"
            )
        if signer.service not in topic.producers:
            raise _refusal(f"is by {signer.service}, which does not publish {topic.name}")
        place = record.position
        if not signer.entry.counts_at(place.topic, place.partition, place.offset):
            raise _refusal(
                f"is by {signer.entry.kid}, which was retired before; {signer.service} has a new key"
            )
        try:
            is_valid = jws.validate_compact(parts, signer.key, algorithms=[CURVE])
            fits = is_valid and json.loads(parts.payload) == _claims(event, record.value or b"")
        except (JoseError, ValueError, TypeError, RecursionError):
            fits = False
        if not fits:
            raise _refusal("is not of this command: the command was changed, or the signature is of another")

    def _signer(self, kid: object) -> Signer | None:
        if not isinstance(kid, str):
            return None
        try:
            self._read()  # A key may have been added or retired since the start.
        except InvalidSigningKey as error:
            log.warning("signing_keys_unreadable", reason=str(error))
        return self._signers.get(kid)


def _claims(event: Envelope[Any], value: bytes) -> dict[str, str]:
    """Return what a signature covers. ``value``: the event's data as JSON.

    Raises:
        ValueError: the JSON names a field twice, or a number is not finite.
    """
    data = json.loads(value, object_pairs_hook=single_keys)
    data.pop(FIELD, None)
    return {"id": event.id, "type": event.data.type, "sha256": content_sha256(data)}


def _refusal(reason: str) -> InvalidEvent:
    return InvalidEvent(field=FIELD, reason=reason)
