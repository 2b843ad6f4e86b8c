"""Changes one document, and asks the same question before and after the change."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_demo.traffic import PATIENT
from tunewheel_runtime.retry import retry
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.gateway import GatewayClient, text_of

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer with passages of documents in its prompt."""

    text: str
    sources: tuple[dict[str, str], ...]
    """``x-tunewheel-sources``: document, heading and version of each section, the best first."""


@dataclass(frozen=True, slots=True)
class Change:
    """A document that changes, and a question that the document answers."""

    question: str
    document: str
    heading: str
    """The heading of the section that holds the answer."""

    def cited_by(self, answer: CitedAnswer) -> str | None:
        """Return the version of the section that ``answer`` cites; None: it does not cite the section."""
        for source in answer.sources:
            if source["document"] == self.document and source["heading"].endswith(self.heading):
                return source["version"]
        return None


@dataclass(frozen=True, slots=True)
class KnowledgeChange:
    """The answers before and after the change of one document."""

    before: CitedAnswer
    after: CitedAnswer
    index_seconds: float
    """Seconds from the publication of the changed document to the ``index.versioned`` that holds it."""
    answer_seconds: float
    """Seconds from the publication to the end of the first answer that cites the changed document."""


async def change_a_document(
    change: Change,
    *,
    project: str,
    feed: EventFeed,
    gateway: GatewayClient,
    publish: Callable[[], Awaitable[object]],
) -> KnowledgeChange:
    """Ask, ``publish`` the changed document, wait for the index that holds it, ask again.

    Raises:
        TimeoutError: no index version follows, or no answer cites the document.
    """
    before = await _cited(gateway, project, change, other_than=None)
    known = len(index_versions(feed, project))
    began = time.monotonic()
    await publish()
    await feed.until(
        lambda: len(index_versions(feed, project)) > known,
        patience=PATIENCE_SECONDS,
        what=topics.INDEX_VERSIONED.name,
    )
    index_seconds = round(time.monotonic() - began, 2)
    after = await _cited(gateway, project, change, other_than=change.cited_by(before))
    return KnowledgeChange(before, after, index_seconds, round(time.monotonic() - began, 2))


def index_versions(feed: EventFeed, project: str) -> list[Envelope[Any]]:
    """Return the ``index.versioned`` of a project that have arrived."""
    return [event for event in feed.by_topic[topics.INDEX_VERSIONED.name] if event.project == project]


async def _cited(
    gateway: GatewayClient, project: str, change: Change, *, other_than: str | None
) -> CitedAnswer:
    """Ask until an answer cites the section in a version ``other_than`` the given one. The gateway opens an
    index version a moment after its event."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = await retry(
            lambda: _ask(gateway, project, change.question), PATIENT, what="asking the gateway"
        )
        if change.cited_by(answer) not in (None, other_than):
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"waited {PATIENCE_SECONDS:g} s for an answer that cites {change.document}, "
                f"{change.heading}; the last one cites {answer.sources}"
            )


async def _ask(gateway: GatewayClient, project: str, question: str) -> CitedAnswer:
    completion, headers = await gateway.complete(project, question, {"max_tokens": 80, "retrieval": "on"})
    return CitedAnswer(text_of(completion), tuple(json.loads(headers.get("x-tunewheel-sources", "[]"))))
