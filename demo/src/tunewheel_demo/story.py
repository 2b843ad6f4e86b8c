"""The demo's story: a first turn from tickets to a served adapter, a drift, a second turn, a rollback."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewheel_cli.publishing.door import IngestDoor
from tunewheel_cli.publishing.publish import Summary, publish_path
from tunewheel_client import AsyncClient, Client, ClientError
from tunewheel_contracts import topics
from tunewheel_contracts.events.lifecycle import Stage

from tunewheel_demo.example import Example, Ticket
from tunewheel_demo.feed import EventFeed
from tunewheel_demo.gauge import MemoryGauge, Stopwatch
from tunewheel_demo.screen import Screen
from tunewheel_demo.shift import PATIENCE_SECONDS, Shift, shown
from tunewheel_demo.traffic import Answered, ask, keep_asking, until_served
from tunewheel_demo.turn import Turn, TurnStopped, TurnWatcher


@dataclass(slots=True)
class Outcome:
    """The contents of the summary file."""

    watch: Stopwatch = field(default_factory=Stopwatch)
    memory: MemoryGauge = field(default_factory=MemoryGauge)
    turns: list[Turn] = field(default_factory=list)
    first_tuned_answer_seconds: float | None = None
    second_promoted: bool | None = None
    drift: list[dict[str, Any]] = field(default_factory=list)
    completed: dict[str, Any] | None = None
    """The second turn's ``turn.completed.v2``."""
    taken_back: dict[str, float] = field(default_factory=dict)
    """Seconds from each command on the second model to the first answer of the model that then serves."""
    events: dict[str, int] = field(default_factory=dict)
    dead_letters: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "stages": [{"name": stage.name, "seconds": stage.seconds} for stage in self.watch.stages],
            "first_tuned_answer_seconds": self.first_tuned_answer_seconds,
            "total_seconds": round(self.watch.elapsed, 2),
            "peak_memory_bytes": self.memory.peak_bytes,
            "turns": [turn.summary() for turn in self.turns],
            "second_promoted": self.second_promoted,
            "drift": self.drift,
            "turn_completed": self.completed,
            "taken_back": self.taken_back,
            "events": self.events,
            "dead_letters": self.dead_letters,
        }


SETTLED = frozenset({Stage.PRODUCTION, Stage.RETIRED, Stage.REJECTED, Stage.ROLLED_BACK})
"""A model that has been in one of these stages has ended its rollout."""
FIRST_TURN = {
    "publish": "SOPs, tickets and experts' answers go onto Kafka's topics",
    "curate 1": "redacts names, drops duplicates, holds questions out for the evaluation",
    "train 1": "the base learns the experts' answers (LoRA)",
    "evaluate 1": "base and tuned model answer held-out questions; the criteria were set before",
    "roll out 1": "copies of customers' questions first (shadow), then half of them (canary)",
    "first answers": "the tuned model serves all customers",
    "base's answers": "the same questions to the base",
}
"""The steps of the first turn, and the reason for each."""
SECOND_TURN = {
    "second wave": "nobody tells the wheel about the new product; customers ask about it",
    "detect drift": "the monitor finds questions that no version was trained on",
    "experts": "experts answer what the monitor asks for",
    "ratings": "experts rate the champion's answers about the new product",
    "curate 2": "old and new answers become the second version",
    "train 2": "the base learns from it",
    "evaluate 2": "the new model must not be worse than the champion",
    "base's answers 2": "the new questions to the base",
    "champion's answers": "the new questions to the champion",
    "roll out 2": "shadow, then canary, then everything",
    "last answers": "the new questions to the second model",
    "did it help": "customers go on; the monitor compares before and after",
}


class Story:
    """Tells the demo on a running wheel."""

    def __init__(
        self, feed: EventFeed, client: AsyncClient, example: Example, screen: Screen,
        outcome: Outcome, open_client: Callable[[], Client],
    ) -> None:  # fmt: skip
        """``open_client`` opens a client that publishes files."""
        self._feed = feed
        self._client = client
        self._example = example
        self._screen = screen
        self._outcome = outcome
        self._open_client = open_client
        self._spec = example.spec
        self.project = self._spec.project
        self._watch = outcome.watch
        self._turns = TurnWatcher(feed, screen, outcome.watch, self.project, client)

    async def first_turn(self) -> Turn:
        """Publish the first wave, and follow it until its adapter is served or refused."""
        self._screen.title("First turn: what the experts answered so far")
        with self._screen.steps(FIRST_TURN):
            return await self._first_turn()

    async def _first_turn(self) -> Turn:
        with self._watch.stage("publish"), self._screen.bar("publish") as bar:
            await self._declare()
            sent = [await self._send(path) for path in (self._example.sops, self._example.tickets)]
            events = sum(summary.events for summary in sent)
            bar.to(events, events, f"{sum(summary.refused for summary in sent)} refused")
        turn = await self._turns.turn("1", after=set())
        self._outcome.turns.append(turn)
        if not turn.passed:
            self._screen.say(f"[red]{turn.refusal}:[/] " + "; ".join(turn.verdict.data.reasons))
            return turn
        if not await self._roll_out(turn, "1", self._example.first_wave()):
            return turn
        questions = self._example.questions()
        tuned = await self._answers("first answers", turn.model_id, questions)
        plain = await self._answers("base's answers", "base", questions)
        self._screen.answers(("base", "tuned model"), list(zip(questions, plain, tuned, strict=True)))
        return turn

    async def second_turn(self, champion: Turn) -> Turn:
        """Send traffic that the champion was not trained on, until the wheel has turned again and reports
        whether that helped."""
        self._screen.title("Second turn: customers ask about a new product line")
        with self._screen.steps(self._with_times(SECOND_TURN)):
            return await self._second_turn(champion)

    def _with_times(self, reasons: dict[str, str]) -> dict[str, str]:
        """Return ``reasons``, each with the time that its step took in the first turn."""
        took = {stage.name.removesuffix(" 1"): stage.seconds for stage in self._watch.stages}
        seconds = {name: took.get(name.removesuffix(" 2")) for name in reasons}
        return {
            name: reason if seconds[name] is None else f"{reason} ({seconds[name]:.0f} s in the first turn)"
            for name, reason in reasons.items()
        }

    async def _second_turn(self, champion: Turn) -> Turn:
        shift = Shift(self._feed, self._client, self._example, self._screen, self._watch)
        await shift.ask()
        wanted = await shift.alarm()
        await self._publish_quietly()
        await shift.answer(wanted)
        await shift.rate()
        turn = await self._turns.turn("2", after={champion.dataset.data.dataset_id})
        self._outcome.turns.append(turn)
        self._outcome.drift = shown(self._feed.of(topics.DRIFT_DETECTED))
        self._outcome.second_promoted = False
        if not turn.passed:
            reasons = "; ".join(turn.verdict.data.reasons)
            self._screen.say(f"[yellow]{turn.refusal}, the champion stays:[/] {reasons}")
            return turn
        questions = self._example.questions(second=True)
        # Ask now, because a replaced champion is not served any more.
        plain = await self._answers("base's answers 2", "base", questions)
        before = await self._answers("champion's answers", champion.model_id, questions)
        self._outcome.second_promoted = await self._roll_out(turn, "2", self._example.second_wave())
        if self._outcome.second_promoted:
            after = await self._answers("last answers", turn.model_id, questions)
            rows = list(zip(questions, plain, before, after, strict=True))
            self._screen.answers(("base", "first tuned model", "second tuned model"), rows)
            self._outcome.completed = (await shift.conclude(turn.model_id)).model_dump(mode="json")
        return turn

    async def take_back(self, first: Turn, second: Turn) -> None:
        """Roll the second model back by one command, promote it again by another, and show who answers."""
        self._screen.title("One command takes the second model back, another one brings it back")
        question, answers = self._example.questions(second=True)[0], list[str]()
        for action, serves in (("rollback", first), ("promote", second)):
            with self._watch.stage(action), self._screen.bar(action):
                began = self._watch.elapsed
                await self._command(action, second.model_id)
                answers.append(await self._answer_of(serves.model_id, question))
            self._outcome.taken_back[action] = seconds = round(self._watch.elapsed - began, 2)
            self._screen.say(f"  {action}: {serves.model_id} answers customers after {seconds:.1f} s")
        self._screen.answers(("after the rollback", "after the promotion"), [(question, *answers)])

    async def _command(self, action: str, model_id: str) -> None:
        """Command the registry, as ``tunewheel model rollback`` and ``tunewheel model promote`` do.

        Raises:
            TurnStopped: the registry refused, or did not answer.
        """

        command = getattr(self._client.models, action)
        try:
            ordered = await command(self.project, model_id, reason="the demo shows how a model is taken back")
            await self._client.commands.wait(
                self.project, ordered.command_id, timeout_seconds=PATIENCE_SECONDS
            )
        except ClientError as error:
            raise TurnStopped(f"{action}: {error}") from error

    async def _answer_of(self, model_id: str, question: str) -> str:
        """Ask as a customer until ``model_id`` answers.

        Raises:
            TimeoutError: another model still answers.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            said = await ask(self._client, self.project, question)
            while said.model != model_id:
                said = await ask(self._client, self.project, question)
        return said.text

    async def _declare(self) -> None:
        await self._client.projects.declare(self.project, self._spec.model_dump_json(), power=False)

    async def _send(self, path: Path) -> Summary:
        with self._open_client() as client:
            return await publish_path(path, project=self.project, door=IngestDoor(client))

    async def _answers(self, name: str, model: str, questions: list[str]) -> list[str]:
        """Ask ``model`` all questions by its own id. Such requests do not count as the project's traffic."""
        count = itertools.count(1)
        with self._watch.stage(name), self._screen.bar(name, len(questions)) as bar:

            async def one(question: str) -> str:
                answer = await ask(self._client, self.project, question, model=model)
                bar.to(next(count), len(questions))
                return answer.text

            return await asyncio.gather(*map(one, questions))

    async def _publish_quietly(self) -> None:
        if not self._example.second_sops.is_dir():
            return
        before = len(self._feed.of(topics.RECORD_INGESTED))
        summary = await self._send(self._example.second_sops)
        await self._feed.until(
            lambda: len(self._feed.of(topics.RECORD_INGESTED)) >= before + summary.events,
            patience=PATIENCE_SECONDS,
            what="the new documents on record",
        )

    async def _roll_out(self, turn: Turn, number: str, tickets: Sequence[Ticket]) -> bool:
        """Keep customers asking until shadow and canary are judged. Return whether the candidate won and is
        served."""
        name, judged = f"roll out {number}", len(self._feed.of(topics.ROLLOUT_JUDGED))

        def stages() -> list[Stage]:
            return self._turns.stages_of(turn.model_id)

        async def hear(one: Answered) -> None:
            if one.model == turn.model_id and self._outcome.first_tuned_answer_seconds is None:
                self._outcome.first_tuned_answer_seconds = round(self._watch.elapsed, 2)
                self._screen.say("The first answer of the tuned model to a customer, in the canary:")
                self._screen.answers(("tuned model",), [(one.ticket.question, one.text)])

        with self._watch.stage(name), self._screen.bar(name) as bar:
            asking = asyncio.create_task(
                keep_asking(
                    self._client,
                    self.project,
                    tickets,
                    lambda n: bar.to(n, None, f"{''.join(stages()[-1:])}: {n} requests"),
                    hear,
                )
            )
            try:
                await self._feed.until(
                    lambda: asking.done() or not SETTLED.isdisjoint(stages()),
                    patience=PATIENCE_SECONDS,
                    what="the rollout's verdict",
                )
                if asking.done():
                    asking.result()
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            turn.promoted = Stage.PRODUCTION in stages()
            if turn.promoted:
                await until_served(self._client, self.project, turn.model_id, patience=PATIENCE_SECONDS)
        for event in self._feed.of(topics.ROLLOUT_JUDGED)[judged:]:
            self._screen.say(f"  {event.data.stage} {event.data.verdict}: {'; '.join(event.data.reasons)}")
        return turn.promoted
