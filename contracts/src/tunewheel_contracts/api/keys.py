"""API keys. No answer holds a hash; a new key is told once."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Slug, SourceId, Strict


class Key(Frozen):
    name: str
    """Who the key is for; it stands in events as who asked."""
    roles: tuple[str, ...]
    projects: tuple[str, ...] | None = None
    """None: all projects."""
    groups: tuple[str, ...] = ()
    """Groups of the file whose roles the key has too."""
    limits: dict[str, Any] | None = None
    """The key's limits at the gateway; None: as in the gateway's settings."""
    keys: int
    """How many keys are valid under this name: two after a rotation that keeps the old one."""


class Keys(Frozen):
    keys: tuple[Key, ...]
    groups: tuple[str, ...] = ()
    """The groups of the file, whose roles a key may have."""
    writable: bool
    """Whether the console may change the file."""


class KeyOrder(Strict):
    """The body of a request for a key: ``roles``, ``groups`` or both say what it may do."""

    name: SourceId
    roles: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    projects: Annotated[tuple[Slug, ...], Field(max_length=1_000)] = ()
    """Empty: the roles hold in all projects."""
    groups: Annotated[tuple[SourceId, ...], Field(max_length=64)] = ()


class RotationOrder(Strict):
    keep_old: bool = False
    """The key before stays valid too, until its name is revoked with ``old_only``."""


class NewKey(Frozen):
    name: str
    key: str
    """The key. It is told now and never again."""
