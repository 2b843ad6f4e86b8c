"""The keys by which services sign events: Ed25519 (RFC 8037), as JSON Web Keys (RFC 7517).

Each of the ``SIGNERS`` has a private key. All services read the public keys from one file, a key
set::

    {"keys": [{"kid": "console-…", "service": "console", "kty": "OKP", "crv": "Ed25519", "x": "…"}]}

A key that is no longer used stays in the file, marked ``retired``: its events are read again at every
start. What it signs after ``ends`` is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from tunewheel_contracts.errors import TunewheelError, first_complaint
from tunewheel_contracts.topic import Service
from tunewheel_contracts.topics import TOPICS

from tunewheel_runtime.files import replace_file

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

CURVE = "Ed25519"
"""The curve, and also the algorithm's name (RFC 9864)."""
SIGNERS = tuple(
    sorted({name for topic in TOPICS if topic.is_signed for name in topic.producers} - {"upstream"})
)
"""The services that sign commands, or the upstream data that their doors let in."""

_MEMBERS = ("kty", "crv", "x", "d", "kid")
_OBJECT = TypeAdapter(dict[str, Any])


class InvalidSigningKey(TunewheelError):
    """A key, or the file of public keys, cannot be used; the message names the place and the fix."""


class CommandKey(BaseModel):
    """The entry of one public key. Other members of a JSON Web Key may stand beside these."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kid: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    service: Service
    retired: datetime | None = None
    """When another key took its place; commands that it signed before ``ends`` count for ever."""
    ends: dict[str, dict[str, int]] | None = None
    """By topic and partition, the offset from which its signatures do not count. None: all count; earlier
    releases retired keys so."""

    def counts_at(self, topic: str, partition: int, offset: int) -> bool:
        """Return whether its signature counts at this position. A partition that ``ends`` lacks was added
        after the key was retired."""
        return self.ends is None or offset < self.ends.get(topic, {}).get(str(partition), 0)


class CommandKeys(BaseModel):
    """The content of the file."""

    keys: list[CommandKey] = Field(default_factory=list[CommandKey])


@dataclass(frozen=True, slots=True)
class Signer:
    """A public key and the service whose signatures it verifies."""

    entry: CommandKey
    key: OKPKey

    @property
    def service(self) -> Service:
        return self.entry.service


def import_key(entry: Mapping[str, Any]) -> OKPKey:
    """Return a JSON Web Key of Ed25519. Raises ValueError: it is no such key."""
    from joserfc.errors import JoseError
    from joserfc.jwk import OKPKey

    if entry.get("kty") != "OKP" or entry.get("crv") != CURVE:
        raise ValueError(f"is not a JSON Web Key with kty OKP and crv {CURVE}")
    try:
        return OKPKey.import_key({name: entry[name] for name in _MEMBERS if name in entry})
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"is not a usable {CURVE} key: {error}") from error


def read_private_key(text: str) -> OKPKey:
    """Return the private key in the setting ``TUNEWHEEL_SIGNING_KEY``. Raises InvalidSigningKey."""
    try:
        key = import_key(_OBJECT.validate_json(text))
    except ValueError:
        key = None  # The error may quote the key.
    if key is None or not key.is_private or not key.kid:
        raise InvalidSigningKey(
            f"TUNEWHEEL_SIGNING_KEY: must be a private JSON Web Key of {CURVE} with kid; make one with "
            "`tunewheel admin signing-keys add`"
        )
    return key


def read_public_keys(path: Path) -> dict[str, Signer]:
    """Return the keys in the file by ``kid``. Raises InvalidSigningKey."""
    found: dict[str, Signer] = {}
    for entry in read_key_set(path).keys:
        try:
            key = import_key(entry.model_dump())
        except ValueError as error:
            raise InvalidSigningKey(f"TUNEWHEEL_SIGNING_KEYS_FILE {path}: {entry.kid} {error}") from error
        if key.is_private or entry.kid in found:
            wrong = "is a private key; keep its public part only" if key.is_private else "occurs twice"
            raise InvalidSigningKey(f"TUNEWHEEL_SIGNING_KEYS_FILE {path}: {entry.kid} {wrong}")
        found[entry.kid] = Signer(entry, key)
    return found


def read_key_set(path: Path) -> CommandKeys:
    """Return the entries of the file. Raises InvalidSigningKey."""
    try:
        return CommandKeys.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSigningKey(f"TUNEWHEEL_SIGNING_KEYS_FILE {path} cannot be read: {error}") from error
    except ValidationError as error:
        where, reason = first_complaint(error)
        raise InvalidSigningKey(f"TUNEWHEEL_SIGNING_KEYS_FILE {path}: {where}: {reason}") from error


def add_key(path: Path, service: str) -> str:
    """Make a key for ``service``, add its public part to the file, which is created if needed, and return the
    private part as one line of JSON. The caller holds the lock of the folder (``one_at_a_time``).

    Raises:
        InvalidSigningKey: ``service`` publishes no commands, or the file is invalid.
        OSError: the file cannot be written.
    """
    from joserfc.jwk import OKPKey

    if service not in SIGNERS:
        choices = ", ".join(SIGNERS)
        raise InvalidSigningKey(f"SERVICE: {service!r} publishes no commands; choose from {choices}")
    made = OKPKey.generate_key(CURVE, private=True)
    private = made.as_dict(private=True) | {"kid": f"{service}-{made.thumbprint()[:12]}"}
    public = {name: value for name, value in private.items() if name != "d"} | {"service": service}
    keys = read_key_set(path).keys if path.exists() else []
    _write(path, [*keys, CommandKey.model_validate(public)])
    return json.dumps(private)


def retire_key(path: Path, kid: str, ends: Mapping[str, Mapping[str, int]] | None) -> None:
    """Mark a key as no longer used; lock as ``add_key``. What it signed before ``ends`` still counts. A
    key that was retired keeps its earlier ends.

    Raises:
        InvalidSigningKey: the file is invalid, or has no such key.
        OSError: the file cannot be written.
    """
    keys = read_key_set(path).keys
    if kid not in {entry.kid for entry in keys}:
        found = ", ".join(entry.kid for entry in keys)
        raise InvalidSigningKey(f"KID: {path} has no key {kid!r}; it has {found}")
    end = {"retired": datetime.now(UTC).replace(microsecond=0), "ends": ends}
    is_meant = {entry.kid: entry.kid == kid and entry.ends is None for entry in keys}
    _write(path, [entry.model_copy(update=end) if is_meant[entry.kid] else entry for entry in keys])


def _write(path: Path, keys: list[CommandKey]) -> None:
    replace_file(path, CommandKeys(keys=keys).model_dump_json(indent=1, exclude_none=True).encode() + b"\n")
