"""Signs the commands and the upstream data that a service publishes, and checks the signatures on the log.

A command acts in the name of a person, whom the service that published it has identified. Its signature
proves that this service published it: a compact JWS (RFC 7515 §7.1) by Ed25519 over the event's id, its type,
and the SHA-256 of the canonical JSON of its data without the signature. For upstream data see
``batch_signatures``; it counts without a signature too, but then without its principal and authority.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from pydantic import TypeAdapter
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import E, Envelope, KafkaRecord
from tunewheel_contracts.identity import canonical_json, content_sha256
from tunewheel_contracts.principal import Trust
from tunewheel_contracts.topics import TOPICS, TopicSpec

from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.files import mark_of
from tunewheel_runtime.identity.access import NoIdentity
from tunewheel_runtime.identity.batch_signatures import BATCH, HEADER, TYPE, digest_of, digest_on_log, holds
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
from tunewheel_runtime.publishing import Tombstone
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

log = structlog.get_logger(__name__)
FIELD = "signature"
FOLDER = "commands/signed-from"
Look = Callable[[list[str]], Awaitable[Mapping[Place, Span]]]
_OBJECT = TypeAdapter(dict[str, Any])
_SEALED = frozenset(topic.name for topic in TOPICS if topic.is_signed and not topic.is_command)
_REMEMBERED = 256
"""How many verified signatures are remembered, so that the events of a batch cost one verification."""


class Verified(NamedTuple):
    """A signature that is valid by the key of ``signer``; ``type`` is the ``typ`` of its header."""

    signer: Signer
    type: object
    payload: bytes


class Signatures:
    """The signatures of one service's events. Where identity is open, no signature is asked for."""

    def __init__(self, service: str, settings: ServiceSettings, store: ObjectStore) -> None:
        self._service = service
        self._settings = settings
        self._store = store
        self._asks = settings.identity != "open"
        self._seen: tuple[int, ...] | None = None
        self._signers: Mapping[str, Signer] = {}
        self._from: dict[str, dict[str, int]] = {}
        """By topic and partition, the offset from which events must be signed."""
        self._verified: dict[bytes, Verified] = {}
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
        """Refuse to start without the keys that this service's events need. Raises NoIdentity."""
        if not self._asks:
            return
        if self._unusable is not None:
            raise NoIdentity(self._unusable)
        if self._settings.signing_keys_file is None:
            raise NoIdentity(
                f"{self._service} cannot tell who published an event: name the file of public keys in "
                "TUNEWHEEL_SIGNING_KEYS_FILE (`tunewheel admin signing-keys add` makes it), or set "
                "TUNEWHEEL_IDENTITY=open to obey everybody on this machine"
            )
        if self._service not in SIGNERS:
            return
        if self._key is None:
            raise NoIdentity(
                f"{self._service} cannot sign the events that it publishes: set TUNEWHEEL_SIGNING_KEY to "
                f"its private key; `tunewheel admin signing-keys add {self._service}` makes one"
            )
        own = self._signers.get(self._key.kid or "")
        if own is None or own.service != self._service or own.key.thumbprint() != self._key.thumbprint():
            raise NoIdentity(
                f"TUNEWHEEL_SIGNING_KEY: {self._settings.signing_keys_file} does not have the key "
                f"{self._key.kid} of {self._service}, so nobody would believe its events; add its public part"
            )

    async def begin(self, topics: Iterable[TopicSpec], look: Look | None = None) -> None:
        """Learn from which offsets on events must be signed. The first service that starts stores the ends of
        the topics: earlier releases wrote the events before them, without signatures. ``look``: returns where
        topics begin and end; None: asks the broker. Raises TransientError: the store or the broker is
        away."""
        names = [topic.name for topic in topics if topic.is_signed]
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
            log.warning("signed_topic_made_anew", topic=topic, signed_from=self._from[topic])
            await self._store.replace(path, json.dumps(self._from[topic]).encode())

    def predates(self, position: Position) -> bool:
        """Return whether an event is older than signatures, so that it counts as one that is signed."""
        return position.offset < self._from.get(position.topic, {}).get(str(position.partition), 0)

    def sign(self, event: Envelope[E]) -> Envelope[E]:
        """Return the event with this service's signature if it is a command and the service has a key."""
        if FIELD not in event.data.__class__.model_fields:
            return event
        bare = event.data.model_copy(update={FIELD: None})
        signature = self.signature(canonical_json(_claims(event, bare.model_dump_json().encode())))
        return replace(event, data=bare.model_copy(update={FIELD: signature.decode() if signature else None}))

    def seal(self, records: Sequence[KafkaRecord | Tombstone]) -> None:
        """Sign the records that hold upstream data, in their headers, if the service has a key."""
        if self._key is None:
            return
        own = [r for r in records if isinstance(r, KafkaRecord) and not r.is_copy]
        sealed = [r for r in own if r.topic in _SEALED]
        for start in range(0, len(sealed), BATCH):
            batch = sealed[start : start + BATCH]
            payload = b"".join(digest_of(record.headers, record.value) for record in batch)
            signature = self.signature(payload, typ=TYPE)
            assert signature is not None
            for record in batch:
                record.headers[HEADER] = signature

    def signature(self, payload: bytes, **header: str) -> bytes | None:
        """Return a compact JWS of ``payload``, with more in its ``header``; None: the service has no key."""
        if self._key is None:
            return None
        from joserfc import jws

        header |= {"alg": CURVE, "kid": self._key.kid or ""}
        return jws.serialize_compact(header, payload, self._key, algorithms=[CURVE]).encode()

    def check(self, topic: TopicSpec, event: Envelope[Any], record: Undecoded) -> Envelope[Any]:
        """Return what counts of an event. Upstream data that nobody signed has neither principal nor
        authority; where it is older than signatures, or identity is open, its authority is an expert's. The
        ``record`` is needed because the decoded event lacks what a newer release wrote. Raises InvalidEvent:
        with the field ``signature``: it is not valid, or a command has none."""
        if topic.name in _SEALED:
            return self._checked_data(topic, event, record)
        if not self._asks or not topic.is_command:
            return event
        signature: str | None = event.data.signature
        if signature is None and not self.predates(record.position):
            raise _refusal("is missing; send the command through the API of the console, which signs it")
        if signature is not None:
            found = self._verified_at(topic, record, signature.encode("ascii", "replace"))
            try:
                fits = json.loads(found.payload) == _claims(event, record.value or b"")
            except (ValueError, TypeError, RecursionError):
                fits = False
            _require(fits)
        return event

    def _checked_data(self, topic: TopicSpec, event: Envelope[Any], record: Undecoded) -> Envelope[Any]:
        signature = record.headers.get(HEADER)
        if not self._asks or signature is None:
            believed = not self._asks or self.predates(record.position)
            return _unsigned(event, Trust.EXPERT if believed else None)
        found = self._verified_at(topic, record, signature)
        try:
            digest = digest_on_log(record.headers, record.value or b"")
        except ValueError:
            digest = None
        _require(found.type == TYPE and digest is not None and holds(found.payload, digest))
        return replace(event, signed_by=found.signer.service)

    def _verified_at(self, topic: TopicSpec, record: Undecoded, signature: bytes) -> Verified:
        """Return a signature that counts at the place of ``record``, whatever it covers."""
        signer = (found := self.verified(signature)).signer
        if signer.service not in topic.producers:
            raise _refusal(f"is by {signer.service}, which does not publish {topic.name}")
        place = record.position
        if not signer.entry.counts_at(place.topic, place.partition, place.offset):
            raise _refusal(
                f"is by {signer.entry.kid}, which was retired before; {signer.service} has a new key"
            )
        return found

    def verified(self, signature: bytes) -> Verified:
        """Return who signed what. Raises InvalidEvent: the signature is not valid."""
        from joserfc import jws
        from joserfc.errors import JoseError

        found = self._verified.get(signature)
        if found is not None and self._signer(found.signer.entry.kid) is found.signer:
            return found
        try:
            parts = jws.extract_compact(signature)
            header = _OBJECT.validate_python(parts.protected)  # joserfc would also accept a list.
        except (JoseError, ValueError, TypeError, RecursionError):
            raise _refusal("is not a compact JWS (RFC 7515 §7.1)") from None
        if header.get("alg") != CURVE:
            raise _refusal(f"is not by {CURVE}")
        signer = self._signer(header.get("kid"))
        if signer is None:
            raise _refusal(
                "is by a key that TUNEWHEEL_SIGNING_KEYS_FILE lacks; add the public key of the service that "
                "published the event"
            )
        try:
            is_valid = jws.validate_compact(parts, signer.key, algorithms=[CURVE])
        except (JoseError, ValueError, TypeError, RecursionError):
            is_valid = False
        if not is_valid:
            raise _refusal(f"is not by {signer.entry.kid}: it was changed")
        found = Verified(signer, header.get("typ"), parts.payload)
        self._verified[signature] = found
        if len(self._verified) > _REMEMBERED:
            del self._verified[next(iter(self._verified))]
        return found

    def _signer(self, kid: object) -> Signer | None:
        if not isinstance(kid, str):
            return None
        try:
            self._read()  # A key may have been added or retired since the start.
        except InvalidSigningKey as error:
            log.warning("signing_keys_unreadable", reason=str(error))
        return self._signers.get(kid)


def _unsigned(event: Envelope[Any], authority: Trust | None) -> Envelope[Any]:
    """Return upstream data with ``authority``, and without what a door alone may say."""
    data = event.data
    if (data.authority, data.principal) == (authority, None):
        return event
    return replace(event, data=data.model_copy(update={"authority": authority, "principal": None}))


def _claims(event: Envelope[Any], value: bytes) -> dict[str, str]:
    """Return what the signature of a command covers. ``value``: the event's data as JSON. Raises ValueError
    where the JSON names a field twice, or a number is not finite."""
    data = json.loads(value, object_pairs_hook=single_keys)
    data.pop(FIELD, None)
    return {"id": event.id, "type": event.data.type, "sha256": content_sha256(data)}


def _require(fits: bool) -> None:
    if not fits:
        raise _refusal("is not of this event: the event was changed, or the signature is of another")


def _refusal(reason: str) -> InvalidEvent:
    return InvalidEvent(field=FIELD, reason=reason)
