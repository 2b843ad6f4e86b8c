"""The file of API keys: hashes, and what each key may do. No key itself is kept, on disk or in memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator
from tunewheel_contracts.errors import TunewheelError, first_complaint
from tunewheel_contracts.fields import Sha256, Slug, SourceId, Strict
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.yaml_reading import read_yaml

from tunewheel_runtime.identity.limits import Limits
from tunewheel_runtime.identity.roles import Caller, Grant, Role


class InvalidKeys(TunewheelError):
    """The file of keys cannot be used; the message names the place and the fix."""


class GrantEntry(Strict):
    """Without ``projects``, the roles hold in all of them."""

    roles: tuple[Role, ...] = Field(default=(Role.APPLICATION,), min_length=1)
    projects: tuple[Slug, ...] | None = None

    def grant(self) -> Grant:
        projects = None if self.projects is None else frozenset(self.projects)
        return Grant(frozenset(self.roles), projects)


class ApiKey(GrantEntry):
    """``sha256``: lower-case hex of the key's SHA-256; two of them while the key is being changed.

    ``groups``: the key may do what these groups of the file may, and without ``roles`` nothing else.
    ``limits``: how much of the gateway the key may use; None: as the gateway's settings say.
    """

    sha256: tuple[Sha256, ...]
    groups: tuple[SourceId, ...] = ()
    limits: Limits | None = None

    @field_validator("sha256", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class KeyFile(Strict):
    """``keys`` by name, and ``groups``: what the members of a group may do, keys and tokens alike."""

    keys: dict[SourceId, ApiKey] = {}
    groups: dict[SourceId, GrantEntry] = {}


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one state of the file. A look-up takes the same time however many keys there are.

    Its time tells nothing about the keys: a table of SHA-256 sums is asked for the sum of what was sent, and
    nobody can choose that sum byte by byte.
    """

    by_sum: Mapping[str, Principal] = field(default_factory=dict[str, Principal])
    own: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict[str, tuple[Grant, ...]])
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """The hashes of each name's keys."""
    groups: Mapping[str, Grant] = field(default_factory=dict[str, Grant])
    limits: Mapping[str, Limits] = field(default_factory=dict[str, Limits])

    def find(self, key: str) -> Principal | None:
        """Return whose key this is."""
        return self.by_sum.get(sum_of(key))

    def holds(self, name: str, fingerprint: str) -> bool:
        """Return whether the key with ``fingerprint`` is still a key of ``name``."""
        return any(fingerprint_of(known) == fingerprint for known in self.sums.get(name, ()))

    def caller(self, principal: Principal) -> Caller:
        """Return ``principal`` with what it may do now; nothing for a key that is in the file no more."""
        if principal.issuer is None:
            own, limits = self.own.get(principal.name, ()), self.limits.get(principal.name)
        else:
            own, limits = (), None
        # Only an issuer vouches for groups; a key's are in the file, whatever an event says of them.
        named = principal.groups if principal.issuer is not None else ()
        by_groups = (self.groups[name] for name in named if name in self.groups)
        return Caller(principal, (*own, *by_groups), limits)


def sum_of(key: str) -> str:
    """Return the hash of ``key`` that the file has: lower-case hex of its SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def fingerprint_of(digest: str) -> str:
    """Return what tells one key of the file from another where its hash in the file is not to be shown."""
    return hashlib.sha256(f"fingerprint:{digest}".encode()).hexdigest()[:32]


def read_keys(path: Path) -> KeyRing:
    """Read the file, YAML or JSON::

        keys:
          helpdesk: {sha256: <hex>, projects: [desk], roles: [publisher, application]}
        groups:
          support-leads: {projects: [desk], roles: [reviewer]}

    Raises:
        InvalidKeys
    """
    return ring_of(read_key_file(path), path)


def read_key_file(path: Path) -> KeyFile:
    """Read the file; what its parts say of each other is checked by ``ring_of``.

    Raises:
        InvalidKeys
    """
    try:
        return KeyFile.model_validate(_parse(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        where, reason = first_complaint(error)
        raise InvalidKeys(f"TUNEWHEEL_API_KEYS_FILE {path}: {where}: {reason}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidKeys(f"TUNEWHEEL_API_KEYS_FILE {path} cannot be read: {error}") from error


def _parse(text: str) -> Any:
    # JSON is YAML too, but ten thousand keys take a second as YAML, and a hundredth of it as JSON.
    if text.lstrip().startswith("{"):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text, object_pairs_hook=_single_keys)
    return read_yaml(text)


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is given twice; keep one of them")
    return found


def ring_of(file: KeyFile, path: Path) -> KeyRing:
    """Return the keys of ``file``, which was read from ``path``.

    Raises:
        InvalidKeys: a key names a group that the file lacks, or two names share a key.
    """
    groups = {name: entry.grant() for name, entry in file.groups.items()}
    by_sum: dict[str, Principal] = {}
    own: dict[str, tuple[Grant, ...]] = {}
    for name, key in file.keys.items():
        for known in key.groups:
            if known not in groups:
                raise InvalidKeys(
                    f"TUNEWHEEL_API_KEYS_FILE {path}: keys.{name}.groups: {known!r} is no group of the file; "
                    "add it below 'groups', or correct it"
                )
        for digest in key.sha256:
            other = by_sum.setdefault(digest, Principal(name=name))
            if other.name != name:
                raise InvalidKeys(
                    f"TUNEWHEEL_API_KEYS_FILE {path}: keys.{name}.sha256: is the key of {other.name!r} too; "
                    "make a key of its own"
                )
        by_groups = tuple(groups[known] for known in key.groups)
        says_roles = "roles" in key.model_fields_set or not by_groups
        own[name] = (key.grant(), *by_groups) if says_roles else by_groups
    sums = {name: key.sha256 for name, key in file.keys.items()}
    limits = {name: key.limits for name, key in file.keys.items() if key.limits is not None}
    return KeyRing(by_sum, own, sums, groups, limits)
