"""Lets a teacher model answer prompts that drifted, within the quota that the spec gives it.

Each answer is checked against the task's form and marked with the teacher's model. Nobody validated it, so it
has the lowest trust.

For each prompt that is asked, the store gets an empty object
``teacher-answers/<project>/<month>/<hash of completion>``. The quota counts the objects of a month. The month
is that of the request, so a redelivered request counts for the same month.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidSpec, first_complaint
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.example_formats import TeacherSpec
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST, TAUGHT_BY, LabelPrompt, LabelPrompts
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_contracts.identity import canonical_json, content_sha256
from tunewheel_contracts.principal import Trust
from tunewheel_outputs.complaints import answer_complaint
from tunewheel_outputs.texts import said_before
from tunewheel_runtime.chat import json_in, reply_of
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.teacher import CONCURRENT, GIVE_UP_AFTER, TeacherAway, open_teacher

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = structlog.get_logger(__name__)
ATTEMPTS = 2
"""How often a prompt is asked until the answer has the task's form."""
JSON_WANTED = "\n\nReply with JSON only, by this JSON Schema: "
Publish = Callable[[ExamplePublished, Envelope[Any]], Awaitable[None]]


class TaughtAnswers:
    """Asks teachers about prompts, and publishes what they answer."""

    def __init__(
        self,
        store: ObjectStore,
        allowed: AllowedSources,
        publish: Publish,
        *,
        open_client: Callable[[TeacherSpec], AsyncOpenAI] = open_teacher,
    ) -> None:
        self._store, self._allowed, self._publish = store, allowed, publish
        self._open_client = open_client
        self._one_at_a_time = defaultdict[str, asyncio.Lock](asyncio.Lock)
        """By project: requests from several partitions share one quota, so they are handled one by one."""

    async def answer(self, event: Envelope[LabelsRequested], spec: ProjectSpec, lease: Lease) -> int:
        """Let the spec's teacher answer as many prompts as its quota allows; return how many it answered.

        A prompt that was asked before is not asked again. If the teacher may not be asked or does not answer,
        the prompts are left to people, and the log says why.

        Raises:
            TransientError: the broker or the store is away.
            LeaseLost: the partition moved. Its next owner goes on.
        """
        teacher, quota = spec.dataset.formats.documents.questions.teacher, spec.drift.labels.teacher_quota
        if quota == 0 or teacher is None:
            return 0
        try:
            self._allowed.check_teacher(teacher)
            check_is_another(teacher, spec)
        except InvalidSpec as error:
            log.error("teacher_not_asked", project=spec.project, field=error.field, reason=error.reason)
            return 0
        folder = f"teacher-answers/{spec.project}/{event.time:%Y-%m}"
        async with self._one_at_a_time[spec.project]:
            asked_before = set(await self._store.list(folder))
            wanted = [
                (item, path)
                for item in await self._prompts(event.data)
                if not item.is_erased and (path := f"{folder}/{_name(item)}") not in asked_before
            ][: max(0, quota - len(asked_before))]
            return await self._ask(event, spec, teacher, wanted, lease) if wanted else 0

    async def _ask(
        self,
        event: Envelope[LabelsRequested],
        spec: ProjectSpec,
        teacher: TeacherSpec,
        wanted: Sequence[tuple[LabelPrompt, str]],
        lease: Lease,
    ) -> int:
        free, failures, published = asyncio.Semaphore(CONCURRENT), list[str](), list[str]()
        async with self._open_client(teacher) as client:

            async def ask(item: LabelPrompt, path: str) -> None:
                async with free:
                    lease.check()
                    if len(failures) >= GIVE_UP_AFTER:
                        return
                    async with self._noted(path):
                        try:
                            output = await taught(client, teacher.model, spec.task, item)
                        except TeacherAway as error:
                            failures.append(str(error))
                            raise
                        example = (
                            None if output is None else _example(event.data, item, output, teacher.model)
                        )
                        if example is not None:
                            await self._publish(example, event)
                            published.append(path)

            await asyncio.gather(*(ask(item, path) for item, path in wanted))
        if failures:
            log.warning("teacher_unavailable", model=teacher.model, reason=failures[0])
        log.info("taught", project=spec.project, asked=len(wanted), published=len(published))
        return len(published)

    @asynccontextmanager
    async def _noted(self, path: str) -> AsyncIterator[None]:
        """Note that a prompt is asked, so that every replica counts it. If the block fails, delete the note:
        the prompt does not count as asked. ``TeacherAway`` is swallowed."""
        await self._store.put(path, b"")
        try:
            yield
        except BaseException as error:
            await self._store.delete([path])
            if not isinstance(error, TeacherAway):
                raise

    async def _prompts(self, asked: LabelsRequested) -> tuple[LabelPrompt, ...]:
        """Return the prompts that this revision of the request added; earlier revisions had their own
        event."""
        data = await self._store.read(asked.prompt_files[-1]) if asked.prompt_files else None
        if data is None:
            return ()
        try:
            return LabelPrompts.model_validate_json(data).items
        except ValidationError as error:
            field, reason = first_complaint(error)
            log.error("prompts_unreadable", request_id=asked.request_id, field=field, reason=reason)
            return ()


async def taught(client: AsyncOpenAI, model: str, task: TaskSpec, item: LabelPrompt) -> str | None:
    """Return a teacher's answer in the task's form; None: it gave no such answer in ``ATTEMPTS`` tries.

    Raises:
        TeacherAway
    """
    schema = task.output_schema
    system = task.system_prompt + (JSON_WANTED + canonical_json(schema).decode() if schema else "")
    messages = [{"role": "system", "content": system}]
    messages += [{"role": turn.role, "content": turn.content} for turn in item.turns]
    for _ in range(ATTEMPTS):
        said = await reply_of(client, model, messages, as_json=schema is not None)
        answer = said.strip() if schema is None else json_in(said)
        complaint = answer_complaint(task, answer, said_before(item.messages))
        if complaint is None:
            return answer
        remark = f"{complaint[0]} {complaint[1]}. Answer the question again, in the form that was asked for."
        messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": remark}]
    return None


def check_is_another(teacher: TeacherSpec, spec: ProjectSpec) -> None:
    """Refuse a teacher that is the project's base model, or its own model under a name that the gateway
    serves.

    Raises:
        InvalidSpec
    """
    own = (spec.project, spec.base_model)
    if teacher.model in own or teacher.model.startswith(f"{spec.project}/"):
        raise InvalidSpec(
            field="dataset.formats.documents.questions.teacher.model",
            reason=f"{teacher.model} is the model to be trained; name another model, or set "
            "drift.labels.teacher_quota to 0",
        )


def _example(asked: LabelsRequested, item: LabelPrompt, output: str, model: str) -> ExamplePublished | None:
    """Return the example; None: the conversation is not valid as an example. The example has no date, so a
    person's answer to the same prompt wins, whichever comes first."""
    turns = item.turns
    value = _object_in(output)
    try:
        return ExamplePublished(
            project=asked.project,
            example_id=item.completion_id,
            input=turns[-1].content if turns and turns[-1].role == "user" else "",
            messages=turns[:-1],
            output=output if value is None else value,
            group=item.customer,
            attributes={LABEL_REQUEST: asked.request_id, TAUGHT_BY: model},
            authority=Trust.UNVERIFIED,
        )
    except ValidationError as error:
        field, reason = first_complaint(error)
        log.warning("prompt_is_no_example", request_id=asked.request_id, field=field, reason=reason)
        return None


def _object_in(output: str) -> dict[str, Any] | None:
    if not output.startswith("{"):
        return None
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _name(item: LabelPrompt) -> str:
    """Return a prompt's name. It follows from the completion, because several alarms may ask about the
    same."""
    return content_sha256([item.completion_id])[:32]
