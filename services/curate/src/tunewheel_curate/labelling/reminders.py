"""Reminds a project's webhook, once a week, of alarms that wait for people."""

from __future__ import annotations

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import TurnDecided
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.view import View
from tunewheel_runtime.webhooks import Notice, Webhook, WebhookSettings
from tunewheel_turns.deciding import PEOPLE

from tunewheel_curate.labelling.requests import FIELD

TYPE = "turn.waiting"


class Reminders:
    """Notifies ``drift.labels.webhook``. A decision changes more often than once a week, so an empty object
    ``reminders/<project>/<alarm>.<week>`` in the store says that the latest reminders were sent."""

    def __init__(
        self, projects: View[ProjectDeclared], store: ObjectStore, settings: WebhookSettings
    ) -> None:
        self._projects, self._store, self._settings = projects, store, settings
        self._webhook = Webhook.of(settings)

    async def pass_on(self, event: Envelope[TurnDecided], lease: Lease) -> None:
        """Send the week's reminder, unless it was sent.

        Raises:
            LeaseLost: the partition moved. Its next owner repeats this.
            TransientError: the broker or the store is away.
        """
        decided = event.data
        waiting = {one.alarm_id: one.waits_for for one in decided.alarms if one.waits_for in PEOPLE}
        declared = await self._projects.fresh(event.project) if waiting and decided.reminder else None
        if declared is None or (url := declared.data.spec.drift.labels.webhook) is None:
            return
        folder, alarm = f"reminders/{event.project}", next(iter(waiting))
        before, sent = (f"{folder}/{alarm}.{week}" for week in (decided.reminder - 1, decided.reminder))
        if await self._store.exists(sent):
            return
        data = {
            "project": event.project, "alarm_ids": list(waiting), "waits_for": sorted(set(waiting.values())),
            "step": decided.step, "reminder": decided.reminder,
            "url": self._settings.page(""),
        }  # fmt: skip
        notice = Notice(event=event, type=TYPE, subject=event.project, field=FIELD, data=data)
        if await self._webhook.tell_under(lease, notice, url):
            await self._store.first(sent, b"")  # else the week's next decision sends it
            # the week before may be read again after a restart; other marks are needed no more
            marks = await self._store.list(folder)
            await self._store.delete([mark for mark in marks if mark not in (before, sent)])
