"""Changes one SOP, and asks the same question before and after, with its citation and without training."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_runtime.retry import retry

from tunewheel_cli.demo.example import Change
from tunewheel_cli.demo.gateway import CitedAnswer, GatewayClient
from tunewheel_cli.demo.screen import Screen
from tunewheel_cli.demo.traffic import PATIENT
from tunewheel_cli.feed import EventFeed

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class KnowledgeChange:
    """The answers before and after the change of one SOP."""

    before: CitedAnswer
    after: CitedAnswer
    index_seconds: float
    """Seconds from the publication of the changed SOP to the ``index.versioned`` that holds it."""
    answer_seconds: float
    """Seconds from the publication to the end of the first answer that cites the changed SOP."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


async def change_an_sop(
    change: Change,
    *,
    project: str,
    feed: EventFeed,
    gateway: GatewayClient,
    publish: Callable[[], Awaitable[object]],
) -> KnowledgeChange:
    """Ask, ``publish`` the changed SOP, wait for the index that holds it, ask again.

    Raises:
        TimeoutError: no index version follows, or no answer cites the SOP.
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


def show(found: KnowledgeChange, change: Change, screen: Screen) -> None:
    """Print both answers, the citation of each, and whether the model repeats the SOP's statement."""
    screen.answers(("before", "after"), [(change.question, found.before.text, found.after.text)])
    for name, answer, fact in (
        ("before", found.before, change.before),
        ("after", found.after, change.after),
    ):
        place = escape(f"{change.document}, {change.heading}")
        repeated = "repeats it" if fact in answer.text else "does not repeat it"
        screen.say(
            f"  {name:<6} cites [bold]{place}[/] ({change.cited_by(answer)}), which says {fact}; "
            f"the model {repeated}"
        )
    screen.say(
        f"  index.versioned {found.index_seconds:.1f} s after the SOP was published, the first answer that "
        f"knows it after {found.answer_seconds:.1f} s; nothing was trained in between"
    )


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
            lambda: gateway.ask_cited(project, change.question), PATIENT, what="asking the gateway"
        )
        if change.cited_by(answer) not in (None, other_than):
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"waited {PATIENCE_SECONDS:g} s for an answer that cites {change.document}, "
                f"{change.heading}; the last one cites {answer.sources}"
            )
