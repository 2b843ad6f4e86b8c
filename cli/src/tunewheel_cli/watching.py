"""Chooses the topics for ``tunewheel watch``."""

from __future__ import annotations

from collections.abc import Iterable

from tunewheel_contracts import topics
from tunewheel_contracts.topics import BY_NAME, TOPICS, TopicSpec

from tunewheel_cli.connection import InvalidOption

# Topics with thousands of events, which are not shown by default.
BUSY = (
    topics.TICKET_PUBLISHED,
    topics.DOCUMENT_PUBLISHED,
    topics.EXAMPLE_PUBLISHED,
    topics.RECORD_INGESTED,
    topics.INFERENCE_COMPLETED,
    topics.INFERENCE_SCORED,
)


def watched_topics(*, everything: bool) -> tuple[TopicSpec, ...]:
    """Return the topics to show; the busy ones only if ``everything`` is set."""
    return tuple(spec for spec in TOPICS if everything or spec not in BUSY)


def topics_called(names: Iterable[str]) -> tuple[TopicSpec, ...]:
    """Return the topics called ``names``.

    Raises:
        InvalidOption: a name is unknown.
    """
    found: list[TopicSpec] = []
    for name in names:
        spec = BY_NAME.get(name.strip())
        if spec is None:
            raise InvalidOption(
                f"--topic: there is no topic {name!r}; choose from {', '.join(sorted(BY_NAME))}"
            )
        found.append(spec)
    return tuple(found)
