"""Services: who reads the log, how far they are behind, and what they refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Strict, Timestamp


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

    letter_id: str = ""
    """The service, and the message's topic, partition and offset, with colons between them."""
    topic: str
    partition: int
    offset: int
    service: str
    field: str
    reason: str
    message: str = ""
    """The message's beginning, where one letter is asked for. Bytes that are not UTF-8, and characters that
    nobody sees, are escaped."""
    size: int = 0
    """The message's length in bytes."""
    tries: int = 1
    """How often the service refused this event."""
    alike: int = 1
    """How many letters have this service, topic, field and reason."""
    again_at: Timestamp | None = None
    """When somebody last asked that the service handles the message again."""
    again_by: str | None = None
    """Who asked for it."""
    not_again: str | None = None
    """Why the message cannot be handled again; None: it can."""
    event_id: str = ""
    kind: str = "invalid"
    """``invalid``, or ``crashed``: the service failed on the message again and again."""
    project: str | None = None
    """None: the message names no project."""
    at: Timestamp | None = None
    """When the message was refused."""


class RedeliveryOrder(Strict):
    """The body of a request that services handle refused messages again."""

    letter_id: Annotated[str, Field(min_length=1, max_length=256)]
    all_like_it: bool = False
    """Also the other letters of the same service, topic, field and reason, whose messages nobody has asked
    for yet."""


class Redelivered(Frozen):
    letters: tuple[str, ...]
    """The letters whose messages the services will handle again."""
    left: int = 0
    """How many letters like these are left, because there were too many for one request, or because their
    messages cannot be handled again."""
