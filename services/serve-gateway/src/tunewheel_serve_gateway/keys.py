"""API keys: who calls, and for which projects. Only hashes are kept, on disk and in memory."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError
from tunewheel_contracts.errors import TunewheelError, first_complaint
from tunewheel_contracts.fields import Sha256, Slug, SourceId, Strict
from tunewheel_contracts.yaml_reading import read_yaml

from tunewheel_serve_gateway.errors import NotAuthenticated


class InvalidKeys(TunewheelError):
    """The gateway must not start with these keys; the message names the setting and the fix."""


class ApiKey(Strict):
    """``sha256``: lower-case hex of the key's SHA-256. Without ``projects`` the key is for all of them."""

    sha256: Sha256
    projects: tuple[Slug, ...] | None = None


class KeyFile(Strict):
    keys: dict[SourceId, ApiKey]


@dataclass(frozen=True, slots=True)
class Caller:
    """``projects`` None: every project. ``name`` None: nobody asked."""

    name: str | None = None
    projects: frozenset[str] | None = None

    def may_use(self, project: str) -> bool:
        return self.projects is None or project in self.projects


ANYBODY = Caller()


class KeyRing:
    """Without keys everybody is let in."""

    def __init__(self, keys: Mapping[str, ApiKey] | None = None) -> None:
        self._keys = (
            None
            if keys is None
            else [
                (key.sha256, Caller(name, frozenset(key.projects) if key.projects is not None else None))
                for name, key in keys.items()
            ]
        )

    @property
    def is_open(self) -> bool:
        return self._keys is None

    def identify(self, authorization: str | None) -> Caller:
        """Return whose key ``Authorization: Bearer <key>`` carries.

        Raises:
            NotAuthenticated: no key, or an unknown one.
        """
        if self._keys is None:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise NotAuthenticated("no API key; send 'Authorization: Bearer <key>'")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found: Caller | None = None
        for known, caller in self._keys:  # to the end, whoever matches: no timing tells
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise NotAuthenticated("this API key is unknown; ask for a new one")
        return found


def load_keys(path: Path | None) -> KeyRing:
    """Read the key file, YAML or JSON: ``keys: {<name>: {sha256: <hex>, projects: [<project>]}}``.

    Raises:
        InvalidKeys
    """
    if path is None:
        return KeyRing()
    try:
        return KeyRing(KeyFile.model_validate(read_yaml(path.read_text(encoding="utf-8"))).keys)
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidKeys(f"TUNEWHEEL_API_KEYS_FILE {path}: {field}: {reason}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidKeys(f"TUNEWHEEL_API_KEYS_FILE {path} cannot be read: {error}") from error
