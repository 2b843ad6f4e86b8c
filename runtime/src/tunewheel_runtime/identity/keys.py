"""Reads the file of API keys: their hashes and rights. The keys themselves are not stored on disk or in
memory."""

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

from tunewheel_runtime.identity.roles import Caller, Grant, Limits, Role


class InvalidKeys(TunewheelError):
    """The file of keys is invalid; the message names the place and the fix."""


class GrantEntry(Strict):
    """Roles, and the projects in which they hold. Without ``projects`` they hold in all projects."""

    roles: tuple[Role, ...] = Field(default=(Role.APPLICATION,), min_length=1)
    projects: tuple[Slug, ...] | None = None

    def grant(self) -> Grant:
        projects = None if self.projects is None else frozenset(self.projects)
        return Grant(frozenset(self.roles), projects)


class ApiKey(GrantEntry):
    """The entry of one API key.

    ``sha256``: lower-case hex of the key's SHA-256; two hashes while the key is being changed. ``groups``:
    groups of the file whose roles the key has in addition to its own ``roles``. ``limits``: the key's limits
    at the gateway; None: as in the gateway's settings.
    """

    sha256: tuple[Sha256, ...]
    groups: tuple[SourceId, ...] = ()
    limits: Limits | None = None

    @field_validator("sha256", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class KeyFile(Strict):
    """The content of the file: ``keys`` by name, and the roles of ``groups``. Keys and tokens may have
    groups."""

    keys: dict[SourceId, ApiKey] = {}
    groups: dict[SourceId, GrantEntry] = {}


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys in the file. A look-up takes the same time for any number of keys.

    The time of a look-up reveals nothing about the keys: the table is searched for the SHA-256 of the sent
    key, and a caller cannot choose a hash byte by byte.
    """

    by_sum: Mapping[str, Principal] = field(default_factory=dict[str, Principal])
    own: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict[str, tuple[Grant, ...]])
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """The hashes of the keys, by the key's name."""
    groups: Mapping[str, Grant] = field(default_factory=dict[str, Grant])
    limits: Mapping[str, Limits] = field(default_factory=dict[str, Limits])
    groups_of_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def find(self, key: str) -> Principal | None:
        """Return the principal of ``key``; None where the key is unknown."""
        return self.by_sum.get(sum_of(key))

    def holds(self, name: str, fingerprint: str) -> bool:
        """Return whether the key with ``fingerprint`` is still a key of ``name``."""
        return any(fingerprint_of(held) == fingerprint for held in self.sums.get(name, ()))

    def caller(self, principal: Principal) -> Caller:
        """Return ``principal`` with its present roles; a key that is no longer in the file has none."""
        own, limits = self.own.get(principal.name, ()), self.limits.get(principal.name)
        # Groups in a principal are trusted only from an issuer. A key's groups are read from the file.
        if principal.issuer is None:
            named = self.groups_of_keys.get(principal.name, ())
            return Caller(principal, own, limits, frozenset(named))
        named = [name for name in principal.groups if name in self.groups]
        return Caller(principal, tuple(self.groups[name] for name in named), None, frozenset(named))


def sum_of(key: str) -> str:
    """Return the hash of ``key`` as in the file: lower-case hex of its SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def fingerprint_of(digest: str) -> str:
    """Return a fingerprint that identifies a key of the file without showing its hash."""
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
    """Read the file. ``ring_of`` checks that its parts are consistent. Raises InvalidKeys."""
    try:
        return KeyFile.model_validate(_parse(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        where, reason = first_complaint(error)
        raise InvalidKeys(f"TUNEWHEEL_API_KEYS_FILE {path}: {where}: {reason}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidKeys(f"TUNEWHEEL_API_KEYS_FILE {path} cannot be read: {error}") from error


def _parse(text: str) -> Any:
    # JSON is valid YAML, but ten thousand keys take a second to read as YAML, and a hundredth of it as JSON.
    if text.lstrip().startswith("{"):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text, object_pairs_hook=single_keys)
    return read_yaml(text)


def single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object (``object_pairs_hook``). Raises ValueError for one that has a name twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} occurs twice; keep one of them")
    return found


def ring_of(file: KeyFile, path: Path) -> KeyRing:
    """Return the keys of ``file``, which was read from ``path``. Raises InvalidKeys: a key names a group that
    the file lacks, or two names share a key."""
    groups = {name: entry.grant() for name, entry in file.groups.items()}
    by_sum: dict[str, Principal] = {}
    own: dict[str, tuple[Grant, ...]] = {}
    for name, key in file.keys.items():
        for group in key.groups:
            if group not in groups:
                raise InvalidKeys(
                    f"TUNEWHEEL_API_KEYS_FILE {path}: keys.{name}.groups: the file has no group {group!r}; "
                    "add it below 'groups', or correct it"
                )
        for digest in key.sha256:
            other = by_sum.setdefault(digest, Principal(name=name))
            if other.name != name:
                raise InvalidKeys(
                    f"TUNEWHEEL_API_KEYS_FILE {path}: keys.{name}.sha256: is also the key of {other.name!r}; "
                    "make a separate key for each"
                )
        by_groups = tuple(groups[group] for group in key.groups)
        says_roles = "roles" in key.model_fields_set or not by_groups
        own[name] = (key.grant(), *by_groups) if says_roles else by_groups
    sums = {name: key.sha256 for name, key in file.keys.items()}
    limits = {name: key.limits for name, key in file.keys.items() if key.limits is not None}
    groups_of_keys = {name: key.groups for name, key in file.keys.items() if key.groups}
    return KeyRing(by_sum, own, sums, groups, limits, groups_of_keys)
