"""Labelling: opens requests for labels, and publishes people's answers as examples.

Both the page and the API use it. An answer is ``example.published`` on the log. Which prompts are answered is
kept in the store, without texts, so that labelling continues after a restart or at another console.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import count
from typing import Any, Literal

from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST, OUT_OF_SCOPE, LabelPrompt, LabelPrompts
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.principal import Trust
from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import Actions
from tunewheel_console.control.dataset_files import DatasetFiles
from tunewheel_console.control.resolving import find, project_of
from tunewheel_console.label_queue import LabelQueue, Mark, Opinion, order_of
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

CLAIM_SECONDS = 60.0
"""For how long others wait for the answer of somebody whose console may have been killed meanwhile."""
HELD_SECONDS = 300.0
"""For how long a prompt that somebody looks at is offered to others last."""


@dataclass
class Labelling:
    """Opens requests for labels and takes answers."""

    state: ConsoleState
    actions: Actions
    store: ObjectStore
    refresh: Callable[[], Awaitable[None]]
    """Reads the log to its current end."""
    clock: Callable[[], float] = time.monotonic
    answering: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    """Held from the look at a prompt's state until its answer is marked."""
    _held: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]], init=False)
    """By person, the completion that they looked at last, and when."""

    def __post_init__(self) -> None:
        self.datasets = DatasetFiles(self.store)

    def task_of(self, project: str) -> TaskSpec:
        """Return the task, which defines the form of answers. Raises Refused if the project is not
        declared."""
        return self.spec_of(project).task

    def spec_of(self, project: str) -> ProjectSpec:
        """Return the project's spec. Raises Refused if the project is not declared."""
        view = self.state.projects.get(project)
        if view is None or view.spec is None:
            raise Refused(HTTPStatus.CONFLICT, "project", f"{project} is not declared; declare its spec")
        return view.spec

    async def open(self, project: str, request_id: str, person: str | None = None) -> LabelQueue:
        """Read a request with its prompts and their states, as ``person`` is asked for them. Raises Refused:
        there is no such request, or its prompts are not in the store. TransientError: the broker or the store
        cannot be reached."""
        await self.state.projects.open(project)  # at once, it would keep other requests waiting
        try:
            view, request = self._find(project, request_id)
        except Refused:  # this process may have just started
            await self.refresh()
            view, request = self._find(project, request_id)
        request_id = request.data.request_id
        items, spec = await self._read_prompts(request.data), self.spec_of(project)
        for item in items:
            if item.is_erased:
                view.labels.given.pop(item.completion_id, None)
        return LabelQueue(
            request=request,
            items=items,
            marks=await self._marks(project, request_id),
            answered=frozenset(view.labels.answered),
            outside=frozenset(view.labels.outside),
            opinions=await self._opinions(project, request_id),
            settled=view.labels.settled(request_id),
            spec=spec.drift.labels,
            outcome=view.labels.outcome_of(request_id),
            order=order_of(items, [one.completion_ids for one in request.data.clusters], spec.task),
            held=self._held_by_others(person),
        ).counted()

    def hold(self, item: LabelPrompt, person: str) -> list[str]:
        """Note that ``person`` has a prompt before them, and return who else has."""
        key = item.completion_id
        others = [who for who, name in self._holds() if name == key and who != person]
        self._held[person] = key, self.clock()
        return others

    def _holds(self) -> list[tuple[str, str]]:
        since = self.clock() - HELD_SECONDS
        self._held = {who: held for who, held in self._held.items() if held[1] >= since}
        return [(who, name) for who, (name, _) in self._held.items()]

    def _held_by_others(self, person: str | None) -> frozenset[str]:
        return frozenset(name for who, name in self._holds() if who != person)

    async def claim(self, queue: LabelQueue, number: int, person: str) -> str | None:
        """Note in the store that ``person`` replaces the answer that ``queue`` has; return who else does, at
        another console, in the same moment. None: nobody, or two opinions are asked for."""
        if queue.spec.second_opinion:
            return None
        asked, item, now = queue.request.data, queue.item(number), datetime.now(UTC)
        own = Mark(completion_id=item.completion_id, state="answered", by=person, at=now)
        name = content_sha256([item.completion_id, queue.version_of(item)])[:32]
        for attempt in count(1):
            path = f"{_folder(asked.project, asked.request_id)}.claims/{name}.{attempt}.json"
            held = await self.store.first_document(path, own)
            # Of a claim that is old, or ahead of this clock, the next one counts, for its person too.
            if held == own:
                return None
            if abs((now - held.at).total_seconds()) < CLAIM_SECONDS:
                return None if held.by == person else held.by
        raise AssertionError("count ends")

    async def done(self, asked: LabelsRequested) -> Counter[str]:
        """Return how many prompts of a request were answered or left out, without reading the prompts."""
        marks = await self._marks(asked.project, asked.request_id)
        labels = self.state.projects[asked.project].labels
        done = Counter[str](mark.state for mark in marks.values())
        for state, elsewhere in (("answered", labels.answered), ("out_of_scope", labels.outside)):
            done[state] += len((elsewhere - marks.keys()).intersection(asked.completion_ids))
        return done

    def complaint(self, queue: LabelQueue, number: int, output: str) -> tuple[str, str] | None:
        """Return field and reason if ``output`` does not have the task's form. Raises Refused: no such
        prompt."""
        from tunewheel_outputs.complaints import answer_complaint
        from tunewheel_outputs.texts import said_before

        asked = said_before(queue.item(number).messages)
        return answer_complaint(self.task_of(queue.request.data.project), output, asked)

    async def answer(
        self,
        queue: LabelQueue,
        number: int,
        output: str | None,
        *,
        person: str,
        caller: Caller,
        at: datetime | None = None,
    ) -> LabelQueue:
        """Publish ``output`` as the right answer to a prompt. None: the prompt is out of the task's scope, an
        example without an answer, on which nothing is trained. Once this returns, the answer is kept.

        A later answer to the same prompt, by any person, replaces this one. ``at``: when the person gave it;
        None: now. Raises Refused: the answer does not have the task's form (the field is named), or there is
        no such prompt. TransientError: the broker or the store is away; try again."""
        from tunewheel_outputs.labels import label_of

        self.check_form(queue, number, output)
        item = queue.item(number)
        if output is None:
            return await self._said(queue, item, None, OUT_OF_SCOPE, person, caller, at)
        task = self.task_of(queue.request.data.project)
        label = label_of(output, task) or output
        return await self._said(queue, item, _as_answer(task, output), label, person, caller, at)

    def check_form(self, queue: LabelQueue, number: int, output: str | None) -> None:
        """Raise Refused if there is no such prompt, or ``output`` does not have the task's form."""
        queue.item(number)
        if output is not None and (found := self.complaint(queue, number, output)) is not None:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, *found)

    async def _said(
        self,
        queue: LabelQueue,
        item: LabelPrompt,
        output: Mapping[str, Any] | str | None,
        label: str,
        person: str,
        caller: Caller,
        at: datetime | None,
    ) -> LabelQueue:
        """Publish an answer, where a second opinion is asked for only once two people have given the same
        label; if nobody agrees, publish that the prompt is left out. ``output`` None: out of scope. Two who
        answer at the same time both see both opinions."""
        asked, at = queue.request.data, at or datetime.now(UTC)
        if queue.spec.second_opinion:
            own = Opinion(
                completion_id=item.completion_id, by=person, label=content_sha256(label.encode()), at=at
            )
            name = content_sha256([item.completion_id, person])[:32]
            path = f"{_opinions(asked.project, asked.request_id)}/{name}.json"
            await self.store.replace(path, own.model_dump_json().encode())
            queue = replace(queue, opinions=await self._opinions(asked.project, asked.request_id))
            labels = [*queue.labels_of(item).values()]
            if labels.count(own.label) < 2:
                if len(labels) < queue.spec.most_opinions:
                    return queue
                output = None  # nobody agrees: a topic must not wait for an answer that never comes
        example = label_example(asked, item, output, person=person, at=at, caller=caller)
        await self.actions.answer(queue.request, example)
        return await self._marked(queue, item, "out_of_scope" if output is None else "answered", person, at)

    def _find(self, project: str, asked: str) -> tuple[Project, Envelope[LabelsRequested]]:
        view = project_of(self.state, project)
        requests = view.labels.by_id
        return view, find(asked, requests, _asked_at, field="request_id", project=project, noun="label")

    async def _read_prompts(self, asked: LabelsRequested) -> tuple[LabelPrompt, ...]:
        """Read the prompts. They are read again each time, because an erasure empties some."""
        files = [data for path in asked.prompt_files if (data := await self.store.read(path)) is not None]
        if not files:
            reason = f"of {asked.request_id} are not in the store; answer by example.published instead"
            raise Refused(HTTPStatus.GONE, "prompts", reason)
        try:
            return tuple(item for data in files for item in LabelPrompts.model_validate_json(data).items)
        except ValidationError as error:
            field, reason = first_complaint(error)
            complaint = f"of {asked.request_id} cannot be read: {field} {reason}"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "prompts", complaint) from error

    async def _marks(self, project: str, request_id: str) -> dict[str, Mark]:
        notes = await self.store.read_folder(_folder(project, request_id))
        marks = (Mark.model_validate_json(note) for note in notes.values())
        return {mark.completion_id: mark for mark in marks}

    async def _opinions(self, project: str, request_id: str) -> tuple[Opinion, ...]:
        if not self.spec_of(project).drift.labels.second_opinion:
            return ()
        notes = await self.store.read_folder(_opinions(project, request_id))
        return tuple(Opinion.model_validate_json(notes[name]) for name in sorted(notes))

    async def _marked(
        self,
        queue: LabelQueue,
        item: LabelPrompt,
        state: Literal["answered", "out_of_scope"],
        person: str,
        at: datetime,
    ) -> LabelQueue:
        asked = queue.request.data
        mark = Mark(completion_id=item.completion_id, state=state, by=person, at=at)
        name = content_sha256(item.completion_id.encode())[:32]
        path = f"{_folder(asked.project, asked.request_id)}/{name}.json"
        await self.store.replace(path, mark.model_dump_json().encode())
        return replace(queue, marks={**queue.marks, item.completion_id: mark}).counted()


def label_example(
    asked: LabelsRequested,
    item: LabelPrompt,
    output: Mapping[str, Any] | str | None,
    *,
    person: str,
    at: datetime,
    caller: Caller,
) -> ExamplePublished:
    """Return an example with ``output`` as the answer that ``person`` gives to a prompt. None: the prompt is
    out of scope. Raises ValidationError: the conversation does not end with a question, or a text is too
    long."""
    turns = item.turns
    return ExamplePublished(
        project=asked.project,
        example_id=item.completion_id,
        input=turns[-1].content if turns and turns[-1].role == "user" else "",
        messages=turns[:-1],
        output=dict(output) if isinstance(output, Mapping) else output or "",
        group=item.customer,
        validated_by=person,
        validated_at=at,
        attributes={LABEL_REQUEST: asked.request_id} | ({OUT_OF_SCOPE: "true"} if output is None else {}),
        principal=caller.principal,
        authority=Trust.EXPERT,  # The role reviewer, which answering prompts needs, grants it.
    )


def _as_answer(task: TaskSpec, output: str) -> dict[str, Any] | str:
    """Return a JSON object as an object, and any other answer as text."""
    value = json.loads(output) if task.output_schema is not None else None
    return value if isinstance(value, dict) else output.strip()


def _asked_at(request: Envelope[LabelsRequested]) -> datetime:
    return request.time


def _folder(project: str, request_id: str) -> str:
    return f"labels/{project}/{request_id}"


def _opinions(project: str, request_id: str) -> str:
    return f"{_folder(project, request_id)}.opinions"
