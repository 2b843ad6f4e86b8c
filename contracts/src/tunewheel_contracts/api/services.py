"""Services: who reads the log, how far they are behind, and what they refused."""

from __future__ import annotations

from tunewheel_contracts.fields import Frozen, Timestamp


class GroupLag(Frozen):
    """A consumer group on one topic."""

    group: str
    service: str = ""
    """The service of the group; empty: it belongs to no service of Tunewheel."""
    topic: str
    behind: int = 0
    """How many records the group has not committed."""
    hosts: tuple[str, ...] = ()
    """The hosts of its members, one per member, so that a host may occur several times."""
    visible: bool = True
    """False: the console may not see the group, so nothing else is known about it."""


class Services(Frozen):
    groups: tuple[GroupLag, ...]
    silent: tuple[str, ...] = ()
    """The services whose consumer groups have no member."""
    hidden: tuple[str, ...] = ()
    """The consumer groups that the console may not see."""


class DeadLetter(Frozen):
    """A message that a service refused: its place on the log, the field and the reason."""

    topic: str
    partition: int
    offset: int
    service: str
    field: str
    reason: str
    message: str = ""
    """The message's beginning. Bytes that are not UTF-8 are escaped."""
    event_id: str = ""
    kind: str = "invalid"
    """``invalid``, or ``crashed``: the service failed on the message again and again."""
    project: str | None = None
    """None: the message names no project."""
    at: Timestamp | None = None
    """When the message was refused."""
