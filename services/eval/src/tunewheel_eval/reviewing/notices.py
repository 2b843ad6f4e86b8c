"""Tells the webhook of the project's spec that a review waits."""

from __future__ import annotations

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.webhooks import Notice, Webhook

from tunewheel_eval.reviewing.cases import Cases
from tunewheel_eval.settings import Settings

TYPE = "review.waiting"
"""The type of the CloudEvent. It differs from ``review.requested`` because it contains less."""


class Notices:
    """Sends notices about reviews. After a crash a notice is sent again with the same id."""

    def __init__(self, store: ObjectStore, webhook: Webhook, settings: Settings) -> None:
        self._cases, self._webhook, self._settings = Cases(store), webhook, settings

    async def tell(self, event: Envelope[ReviewRequested], lease: Lease) -> None:
        """Send the notice of one review, unless it is decided or the project has no webhook.

        Raises:
            LeaseLost: the partition moved, or the service stops. The next owner sends the notice.
        """
        url = await self._wants_to_know(event.data.review_id)
        if url is not None:
            page = self._settings.page(f"reviews/{event.data.project}/{event.data.review_id}")
            await self._webhook.tell_under(lease, notice_of(event, page=page), url)

    async def _wants_to_know(self, review_id: str | None) -> str | None:
        case = await self._cases.read(review_id) if review_id is not None else None
        if case is None or case.rule.webhook is None:
            return None
        over = await self._cases.rejection(case.review_id) or await self._cases.decision(case.review_id)
        return None if over else case.rule.webhook


def notice_of(event: Envelope[ReviewRequested], *, page: str | None) -> Notice:
    """Return the notice for ``event``; ``page`` is the URL where people review."""
    asked = event.data
    told = {
        "project": asked.project,
        "run_id": asked.run_id,
        "review_id": asked.review_id,
        "items": asked.items,
        "reviewers": asked.reviewers,
        "url": page,
    }
    return Notice(event=event, type=TYPE, subject=asked.run_id, field="review.webhook", data=told)
