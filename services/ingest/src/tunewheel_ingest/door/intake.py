"""The API's interface to the service, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import structlog
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, UpstreamEvent
from tunewheel_contracts.events.upstream import DocumentPublished
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_contracts.principal import SET_BY_DOORS, Trust
from tunewheel_runtime.identity.guard import caller_of
from tunewheel_runtime.identity.roles import NotAuthorised, Role

from tunewheel_ingest.door.quota import OverQuota
from tunewheel_ingest.records import is_lowered, remedy_of, source_of

log = structlog.get_logger(__name__)
E = TypeVar("E", bound=UpstreamEvent)
LISTED = 1_000
"""How many ids, and how many refusals, a receipt lists. More are only counted, so that memory stays
bounded."""
RETRY_SECONDS = 5


class Intake(Protocol):
    """The way into the service."""

    async def check_project(self, project: str) -> None: ...
    def admit(self, project: str) -> None: ...
    def source(self, project: str, name: str) -> SourceSpec | None: ...
    def wrap(self, data: Any) -> Envelope[Any]: ...
    async def publish(self, envelopes: list[Envelope[Any]]) -> None: ...


class Refusal(BaseModel):
    """One line that was refused, and the reason. A body that is not JSON Lines counts as line 1."""

    line: int
    field: str
    reason: str


class Lowered(BaseModel):
    """Validated answers that were accepted, but are trusted less than they state."""

    count: int
    trust: Trust
    """The trust that they have."""
    reason: str


class Receipt(BaseModel):
    """The outcome of a request. Accepted events are on the log, acknowledged by the broker."""

    accepted: int = 0
    refusals: int = 0
    event_ids: list[str] = []
    """The ids of the first 1,000 accepted events."""
    refused: list[Refusal] = []
    """The first 1,000 refusals."""
    lowered: Lowered | None = Field(default=None, exclude_if=lambda lowered: lowered is None)
    error: str | None = Field(default=None, exclude_if=lambda error: error is None)
    """Why the rest of the body was not read (status 429 or 503)."""

    def accept(self, envelopes: Sequence[Envelope[Any]]) -> None:
        self.accepted += len(envelopes)
        self.event_ids.extend(e.id for e in envelopes[: LISTED - len(self.event_ids)])
        if lowered := [e.data for e in envelopes if is_lowered(e.data)]:
            count = len(lowered) + (self.lowered.count if self.lowered else 0)
            who, project, trust = lowered[0].principal, lowered[0].project, lowered[0].authority
            name = who.name if who else "the caller"
            reason = (
                f"{name} lacks the role expert in project {project!r}, so validated_by counts for nothing; "
                "ask an operator for the role, or leave validated_by out"
            )
            if source_of(lowered[0]) is not None:
                reason = f"validated_by counts for nothing. {remedy_of(lowered[0])}"
            self.lowered = self.lowered or Lowered(count=0, trust=trust, reason=reason)
            self.lowered.count = count

    def refuse(self, line: int, error: InvalidEvent) -> None:
        self.refusals += 1
        if len(self.refused) < LISTED:
            self.refused.append(Refusal(line=line, field=error.field, reason=error.reason))


class TooLarge(InvalidEvent):
    """A body, or a document, is over its limit."""


class RoleMissing(InvalidEvent):
    """The caller lacks the role in the project that a body names."""


def sent_by(request: Request, event: E, role: Role) -> E:
    """Return ``event`` with the caller as its principal, and with the trust that the caller's roles grant.
    A document is no answer, so only an expert's states a trust.

    The guard of the route checked only the project of the query. A body may name another one.

    Raises:
        RoleMissing: the caller lacks ``role`` in the event's project.
        InvalidEvent: the body has a field that the door sets.
    """
    caller = caller_of(request)
    try:
        caller.require(role, event.project)
    except NotAuthorised as error:
        if not getattr(request.state, "refusal_logged", False):  # once: a body may have a million lines
            request.state.refusal_logged = True
            log.warning("caller_refused", path=request.url.path[:200], reason=str(error))
        raise RoleMissing(field="project", reason=str(error)) from error
    if stated := SET_BY_DOORS & event.model_fields_set:
        raise InvalidEvent(field=min(stated), reason="is set by the door; leave it out")
    said: dict[str, Any] = {"principal": caller.principal}
    if "authority" in event.__class__.model_fields:
        least = None if isinstance(event, DocumentPublished) else Trust.UNVERIFIED
        said["authority"] = caller.authority(event.project, least=least)
    return event.model_copy(update=said)


def status_of(error: InvalidEvent) -> int:
    """Return the HTTP status of an answer that reports only ``error``."""
    if isinstance(error, RoleMissing):
        return 403
    return 413 if isinstance(error, TooLarge) else 422


def answer(receipt: Receipt, status: int, *, retry_after: int | None = None) -> JSONResponse:
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else None
    return JSONResponse(receipt.model_dump(), status_code=status, headers=headers)


def refusal(error: InvalidEvent) -> JSONResponse:
    """Return the answer to a request that is wholly refused."""
    receipt = Receipt()
    receipt.refuse(1, error)
    return answer(receipt, status_of(error))


def encoded(request: Request) -> JSONResponse | None:
    """Return the refusal of a compressed body; None if it is not compressed. Bodies are never decompressed,
    so that a few bytes cannot become gigabytes."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    return refusal(
        InvalidEvent(field="Content-Encoding", reason=f"is {encoding[:80]!r}; send the body as it is")
    )


def unavailable(receipt: Receipt, error: TransientError) -> JSONResponse:
    """Return the answer while the broker or the store is away, or the project sends too much. Events accepted
    before that are on the log."""
    said = receipt.model_copy(update={"error": str(error)})
    if isinstance(error, OverQuota):
        log.warning("over_quota", reason=str(error))
        return answer(said, 429, retry_after=error.retry_after)
    return answer(said, 503, retry_after=RETRY_SECONDS)
