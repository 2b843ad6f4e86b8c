"""Who is told that a review waits: the webhook that the project's spec names."""

from __future__ import annotations

import asyncio

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.reviewing.cases import Cases
from tunewheel_eval.reviewing.webhook import Webhook


class Notices:
    """Tells of reviews. A notice that a crash cut short is sent again, under the same id."""

    def __init__(self, store: ObjectStore, webhook: Webhook) -> None:
        self._cases, self._webhook = Cases(store), webhook

    async def tell(self, event: Envelope[ReviewRequested], lease: Lease) -> None:
        """Tell of one review, unless it is decided, or its project names nobody to tell.

        Raises:
            LeaseLost: the partition moved, or the service stops; whoever reads the event next tells it.
        """
        url = await self._wants_to_know(event.data.review_id)
        if url is None:
            return
        telling = asyncio.create_task(self._webhook.tell(event, url))
        losing = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait({telling, losing}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
            else:
                lease.check()
        finally:
            for task in (telling, losing):
                task.cancel()
            await asyncio.gather(telling, losing, return_exceptions=True)

    async def _wants_to_know(self, review_id: str | None) -> str | None:
        case = await self._cases.read(review_id) if review_id is not None else None
        if case is None or case.rule.webhook is None:
            return None
        over = await self._cases.rejection(case.review_id) or await self._cases.decision(case.review_id)
        return None if over else case.rule.webhook
