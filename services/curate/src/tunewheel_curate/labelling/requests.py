"""Acts on a request for labels at once: tells the project's webhook, and lets a teacher answer."""

from __future__ import annotations

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.drift_spec import LabelsSpec
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.view import View
from tunewheel_runtime.webhooks import Notice, Webhook, WebhookSettings

from tunewheel_curate.labelling.taught_answers import TaughtAnswers

TYPE = "labels.waiting"
FIELD = "drift.labels.webhook"


class LabelsWanted:
    """Passes requests for labels on to the webhook and the teacher of the project's spec."""

    def __init__(
        self, projects: View[ProjectDeclared], taught: TaughtAnswers, settings: WebhookSettings
    ) -> None:
        self._projects, self._taught, self._settings = projects, taught, settings
        self._webhook = Webhook.of(settings)

    async def pass_on(self, event: Envelope[LabelsRequested], lease: Lease) -> None:
        """Tell the project's webhook, and let its teacher answer, if there are new prompts.

        Raises:
            LeaseLost: the partition moved. Its next owner repeats this; the notice keeps its id.
            TransientError: the broker or the store is away.
        """
        declared = await self._projects.fresh(event.project)
        if declared is None or not event.data.adds_prompts:
            return
        spec = declared.data.spec
        if spec.drift.labels.webhook is not None:
            page = self._settings.page(f"projects/{event.project}/labels/{event.data.request_id}")
            notice = notice_of(event, spec.drift.labels, page=page)
            await self._webhook.tell_under(lease, notice, spec.drift.labels.webhook)
        await self._taught.answer(event, spec, lease)


def notice_of(event: Envelope[LabelsRequested], spec: LabelsSpec, *, page: str | None) -> Notice:
    """Return the notice about ``event``, without any customer's text. ``page``: the URL where people
    answer."""
    asked = event.data
    data = {
        "project": asked.project,
        "request_id": asked.request_id,
        "alarm_id": asked.alarm_id,
        "wanted": asked.wanted,
        "prompts": len(asked.completion_ids),
        "minutes": spec.minutes(asked.wanted),
        "dollars": spec.cost(asked.wanted),
        "share": asked.share,
        "assignees": list(spec.assignees),
        "url": page,
    }
    return Notice(event=event, type=TYPE, subject=asked.request_id, field=FIELD, data=data)
