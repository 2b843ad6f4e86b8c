"""The second turn. Customers ask questions that no version was trained on. Experts answer them on request.
Then the wheel reports whether the new version helped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tunewheel_client import AsyncClient
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import LabelsRequested, TurnCompleted
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST

from tunewheel_demo.example import Example, Ticket
from tunewheel_demo.feed import EventFeed
from tunewheel_demo.gauge import Stopwatch
from tunewheel_demo.screen import Screen
from tunewheel_demo.traffic import Answered, ask_all, keep_asking, rate

PATIENCE_SECONDS = 900.0
RATINGS = 24
"""How many thumbs experts give before the turn, and after it. With so many, a fall of thumbs down from 0.9 to
0.4 is detected in nine of ten cases. They are too few to fill a window of the monitor."""


@dataclass
class Shift:
    """The customers, the experts and the wheel's reports around the second turn."""

    feed: EventFeed
    client: AsyncClient
    example: Example
    screen: Screen
    watch: Stopwatch
    heard: list[Answered] = field(default_factory=list[Answered])
    """Production's answers to the second wave, before any expert saw it."""

    @property
    def project(self) -> str:
        return self.example.spec.project

    async def ask(self) -> None:
        """Send the second wave as customers, without corrections."""
        wave = self.example.second_wave()
        with self.watch.stage("second wave"), self.screen.bar("second wave", len(wave)) as bar:
            self.heard = await ask_all(self.client, self.project, wave, lambda n: bar.to(n, len(wave)))

    async def alarm(self) -> LabelsRequested:
        """Wait until the monitor requests labels, and show the alarms."""
        with self.watch.stage("detect drift"), self.screen.bar("detect drift"):
            first = await self.feed.first(topics.LABELS_REQUESTED, patience=PATIENCE_SECONDS)
        revisions = self.feed.of(topics.LABELS_REQUESTED)
        wanted = [one for one in revisions if one.data.request_id == first.data.request_id][-1]
        for event in self.feed.of(topics.DRIFT_DETECTED):
            d = event.data
            self.screen.say(
                f"  {d.alarm_id}: {d.signal}, {d.statistic_name} {d.statistic:.3g}, p {d.p_value:.2g}; "
                f"{d.suggested_action}"
            )
        keywords = ", ".join(wanted.data.keywords[:8])
        self.screen.say(
            f"  labels.requested: {len(wanted.data.completion_ids)} prompts wait, "
            f"{wanted.data.wanted} answers are wanted{f' ({keywords})' if keywords else ''}"
        )
        return wanted.data

    async def answer(self, wanted: LabelsRequested) -> None:
        """Publish the experts' answers to the customers' questions; see ``expert_answers``."""
        answers = expert_answers(self.heard, wanted)
        before = self._records()
        with self.watch.stage("experts answer"), self.screen.bar("experts", len(answers)) as bar:
            await self.client.publish(self.project, answers, kind="example")
            await self.feed.until(
                lambda: self._records() >= before + len(answers),
                patience=PATIENCE_SECONDS,
                what=f"{len(answers)} answers on record",
            )
            bar.to(len(answers), len(answers), f"{len(wanted.completion_ids)} prompts waited")

    def _records(self) -> int:
        return len(self.feed.of(topics.RECORD_INGESTED))

    async def rate(self) -> None:
        """Send the experts' ratings of the champion's last answers about the new product line: those since
        the alarm say what its questions were answered before the turn."""
        rated = [one for one in self.heard if self._is_new(one.ticket)][-RATINGS:]
        with self.watch.stage("ratings"), self.screen.bar("ratings", len(rated)) as bar:
            for count, one in enumerate(rated, 1):
                await rate(self.client, one, self._label_field)
                bar.to(count, len(rated))

    async def conclude(self, model_id: str) -> TurnCompleted:
        """Keep asking old and new questions until the monitor reports whether the turn helped, and then, for
        a while, until the alarms are resolved. Experts rate answers to questions that no version was trained
        on."""
        unrated = {ticket.ticket_id for ticket in self.example.third_wave()}

        async def hear(one: Answered) -> None:
            if one.ticket.ticket_id in unrated:
                unrated.remove(one.ticket.ticket_id)
                await rate(self.client, one, self._label_field)

        pairs = zip(self.example.third_wave(), self.example.first_wave(), strict=False)
        with self.watch.stage("did it help"), self.screen.bar("did it help") as bar:
            asking = asyncio.create_task(
                keep_asking(
                    self.client,
                    self.project,
                    [ticket for pair in pairs for ticket in pair],
                    lambda n: bar.to(n, None, "requests"),
                    hear,
                )
            )
            try:
                await self._until(
                    asking, lambda: self._completed(model_id) is not None, topics.TURN_COMPLETED_V2
                )
                with contextlib.suppress(TimeoutError):
                    await self._until(asking, lambda: not self._open_alarms(), topics.DRIFT_RESOLVED)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
        done = self._completed(model_id)
        assert done is not None
        self._show(done)
        return done

    async def _until(
        self, asking: asyncio.Task[None], condition: Callable[[], bool], topic: topics.TopicSpec
    ) -> None:
        """Wait for ``condition`` while customers ask.

        Raises:
            TimeoutError: the condition does not hold in time.
        """
        await self.feed.until(
            lambda: asking.done() or condition(), patience=PATIENCE_SECONDS / 3, what=topic.name
        )
        if asking.done():
            asking.result()

    def _show(self, done: TurnCompleted) -> None:
        for event in self.feed.of(topics.DRIFT_RESOLVED):
            self.screen.say(f"  {event.data.alarm_id} is over: {event.data.reason}")
        for alarm_id in sorted(self._open_alarms()):
            self.screen.say(f"  {alarm_id} is still open")
        hours = (done.ended_at - done.began_at).total_seconds() / 3600
        costs = ", ".join(f"{name} {value:.3g}" for name, value in done.cost.items())
        self.screen.say(f"  turn.completed.v2: [bold]{done.outcome}[/] after {hours:.2f} h; {costs}")
        for reason in (*done.reasons, done.next_step):
            if reason:
                self.screen.say(f"    {reason}")

    def _completed(self, model_id: str) -> TurnCompleted | None:
        found = self.feed.find(topics.TURN_COMPLETED_V2, lambda event: event.data.model_id == model_id)
        return None if found is None else found.data

    def _open_alarms(self) -> set[str]:
        """Return the open alarms that requested labels."""
        resolved = {event.data.alarm_id for event in self.feed.of(topics.DRIFT_RESOLVED)}
        wanted = {event.data.alarm_id for event in self.feed.of(topics.LABELS_REQUESTED)}
        return wanted - resolved

    def _is_new(self, ticket: Ticket) -> bool:
        """Return whether no ticket of the first wave has this ticket's label."""
        return ticket.answer[self._label_field] not in self._known_labels

    @cached_property
    def _known_labels(self) -> frozenset[str]:
        return frozenset(one.answer[self._label_field] for one in self.example.first_wave())

    @property
    def _label_field(self) -> str:
        field_name = self.example.spec.task.label_field
        assert field_name is not None, "the example's task names no label_field"
        return field_name


def expert_answers(heard: Sequence[Answered], wanted: LabelsRequested) -> list[ExamplePublished]:
    """Return the experts' answers to all of ``heard``. All of them name the request. Answers to the waiting
    prompts have the completion's id, and come last."""
    asked = set(wanted.completion_ids)
    answers: list[ExamplePublished] = []
    for one in sorted(heard, key=lambda one: one.completion_id in asked):
        ticket, is_asked = one.ticket, one.completion_id in asked
        answers.append(
            ExamplePublished(
                project=wanted.project,
                example_id=one.completion_id if is_asked else ticket.ticket_id,
                input=ticket.question,
                output=ticket.answer,
                group=ticket.customer,
                validated_by=ticket.expert,
                attributes={LABEL_REQUEST: wanted.request_id},
            )
        )
    return answers


def shown(drift: Sequence[Envelope[Any]]) -> list[dict[str, Any]]:
    """Return alarms for the summary file."""
    return [
        {
            "alarm_id": event.data.alarm_id,
            "detector": event.data.signal or event.data.detector,
            "statistic": event.data.statistic,
            "p_value": event.data.p_value,
        }
        for event in drift
    ]
