"""The HTTP API of requests for labels, for programs: lists requests, shows prompts, takes answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import FastAPI, Query, Request
from pydantic import Field, model_validator
from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.fields import JsonObject, SourceId, Strict, Text, Timestamp
from tunewheel_contracts.formats.drift_spec import LabelsSpec
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.control.resolving import reviewer_of
from tunewheel_console.label_context import is_compared_blind, nearest, question_of, similar_answers
from tunewheel_console.label_queue import LabelQueue, fields_of, values_of
from tunewheel_console.labelling import Labelling
from tunewheel_console.state import ConsoleState

Reviewer = Annotated[SourceId | None, Query(description="Who answers, where identity is open.")]
LABELS = "/v1/projects/{project}/labels"


class LabelAnswer(Strict):
    """The body of an answer: ``output`` in the task's form, or ``out_of_scope``."""

    output: JsonObject | Text | None = None
    out_of_scope: bool = False
    answered_at: Timestamp | None = None
    """When the person gave the answer. It replaces no later one. None: now."""
    seen: str | None = None
    """The ``version`` of the item that the person saw. If somebody has answered since, the answer is refused
    (409). None: it replaces any answer."""
    also: Annotated[tuple[int, ...], Field(max_length=200)] = ()
    """The numbers of other items of the same topic that get the same answer. Items that somebody has answered
    meanwhile are passed over."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.output is None) != self.out_of_scope:
            raise inconsistent("output", "or out_of_scope must say what it is; send exactly one of the two")
        return self


def add_label_routes(api: FastAPI, state: ConsoleState, labelling: Labelling) -> None:
    """Add the routes, all for the role reviewer.

    Refusals name the field. Status 404: the request or item is unknown. 409: the project is not declared.
    410: the item was erased, or the prompts are not in the store. 422: the answer does not have the task's
    form. 503: the broker or the store is away.
    """

    @api.get(LABELS)
    @needs(Role.REVIEWER)
    async def list_requests(request: Request, project: str) -> dict[str, Any]:
        """The requests for answers to questions of production."""
        view = state.projects.get(project)
        found = list(view.labels.by_id.values()) if view else []
        listed = [
            _ended(told_of(one, labelling) | so_far(one, labelling, await labelling.done(one.data)))
            for one in found
        ]
        return {"project": project, "requests": listed}

    @api.get(f"{LABELS}/{{request_id}}")
    @needs(Role.REVIEWER)
    async def show_label_request(
        request: Request, project: str, request_id: str, reviewer: Reviewer = None
    ) -> dict[str, Any]:
        """A request with its items, and the fields of an answer."""
        person = _asker(request, reviewer)
        queue = await labelling.open(project, request_id, person)
        fields = fields_of(labelling.task_of(project))
        states = [queue.state_of(item) for item in queue.items]
        items = [
            {
                "number": n,
                "state": found,
                "people": list(queue.spec.people_for(n)),
                "opinions": len(queue.labels_of(queue.items[n - 1])),
            }
            for n, found in enumerate(states, 1)
        ]
        return progress(queue, labelling, person) | {
            "items": items,
            "second_opinion": queue.spec.second_opinion,
            "fields": [field.model_dump(mode="json") for field in fields],
        }

    @api.get(f"{LABELS}/{{request_id}}/items/{{number}}")
    @needs(Role.REVIEWER)
    async def show_label_item(
        request: Request, project: str, request_id: str, number: int, reviewer: Reviewer = None
    ) -> dict[str, Any]:
        """One prompt, as it was asked, and what the model answered, unless people compare answers to the same
        question blind. Others are offered the prompt last from now on, for five minutes."""
        person = _asker(request, reviewer)
        queue = await labelling.open(project, request_id, person)
        return await _shown(labelling, queue, number, person)

    @api.get(f"{LABELS}/{{request_id}}/items/{{number}}/context")
    @needs(Role.REVIEWER)
    async def show_label_context(project: str, request_id: str, number: int) -> dict[str, Any]:
        """Similar questions with the answers of experts, the most similar first; and what to ask
        ``GET …/passages`` for, null if the project has no index of documents."""
        queue = await labelling.open(project, request_id)
        item, view = queue.item(number), state.projects[project]
        similar = await similar_answers(queue, item, view, labelling.datasets)
        return {"similar": similar, "search": question_of(item.messages) if view.index else None}

    @api.put(f"{LABELS}/{{request_id}}/items/{{number}}/answer")
    @needs(Role.REVIEWER)
    async def answer_label(
        request: Request,
        project: str,
        request_id: str,
        number: int,
        body: LabelAnswer,
        reviewer: Reviewer = None,
    ) -> dict[str, Any]:
        """Answer a prompt, or say that nobody need answer. Another answer replaces this one."""
        caller, at = caller_of(request), body.answered_at
        person = reviewer_of(caller, reviewer)
        output = None if body.out_of_scope else _text(body.output)
        async with labelling.answering:
            queue = await labelling.open(project, request_id, person)
            queue.check(number, at, person)
            queue.check_seen(number, body.seen)
            open_ = queue.beside(number, person)
            together = [number, *(one for one in dict.fromkeys(body.also) if one in open_)]
            for one in together:
                labelling.check_form(queue, one, output)
            if body.seen is not None:
                free: list[int] = []
                for one in together:
                    if (who := await labelling.claim(queue, one, person)) is None:
                        free.append(one)
                    elif one == number:  # before any of the others is claimed for nothing
                        reason = f"is not the present answer: {who} answers item {one} just now; look again"
                        raise Refused(HTTPStatus.CONFLICT, "seen", reason)
                together = free
            for one in together:
                queue = await labelling.answer(queue, one, output, person=person, caller=caller, at=at)
        return progress(queue, labelling) | {
            "number": number,
            "next": queue.next_after(number, person),
            "passed_over": [one for one in body.also if one not in together],
        }


async def _shown(labelling: Labelling, queue: LabelQueue, number: int, person: str | None) -> dict[str, Any]:
    """Return a prompt as ``person`` sees it, who has it before them from now on."""
    found, asked = queue.item(number), queue.request.data
    fields, view = fields_of(labelling.task_of(asked.project)), labelling.state.projects[asked.project]
    beside = [(n, question_of(queue.items[n - 1].messages)) for n in queue.beside(number, person)]
    nearest_first = nearest(question_of(found.messages), [text for _, text in beside])
    waiting = [one.request for one in view.reviews.waiting if one.request is not None]
    is_blind = await is_compared_blind(found, waiting, labelling.store)
    output, following = "" if is_blind else found.output, queue.next_after(number, person)
    complaint = labelling.complaint(queue, number, output) if output else None
    mark = queue.marks.get(found.completion_id)
    return {
        "number": number,
        "of": len(queue.items),
        "state": queue.state_of(found),
        "version": queue.version_of(found),
        "answered_by": mark.by if mark else None,
        "answered_at": mark.at.isoformat() if mark else None,
        "completion_id": found.completion_id,
        "messages": [message.model_dump(mode="json") for message in found.turns],
        "model_output": output,
        "model_complaint": " ".join(complaint) if complaint else None,
        "model_values": values_of(fields, output),
        "is_compared": is_blind,
        "given_values": values_of(fields, view.labels.given.get(found.completion_id, "")),
        "beside": [{"number": beside[n][0], "question": beside[n][1]} for n, _ in nearest_first],
        "others": labelling.hold(found, person) if person else [],
        "previous": queue.before(number),
        "following": following if following != number else None,
    }


def _asker(request: Request, reviewer: str | None) -> str | None:
    """Return the name of the person; None: identity is open, and they did not say it."""
    caller = caller_of(request)
    return reviewer_of(caller, reviewer) if caller.principal or reviewer else None


def told_of(request: Envelope[LabelsRequested], labelling: Labelling) -> dict[str, Any]:
    """Return a request without its prompts."""
    asked = request.data
    labels = labelling.state.projects[asked.project].labels
    lacking, outcome = labels.lacking(asked.request_id), labels.outcome_of(asked.request_id)
    return {
        "request_id": asked.request_id,
        "alarm_id": asked.alarm_id,
        "asked_by": asked.asked_by,
        "dataset_id": asked.dataset_id,
        "state": "waiting" if outcome is None else "ended",
        "outcome": outcome,
        "requested_at": request.time.isoformat(),
        "keywords": list(asked.keywords),
        "wanted": asked.wanted,
        "prompts": len(asked.completion_ids),
        "share": asked.share,
        "clusters": [
            {
                "cluster_id": one.cluster_id,
                "prompts": len(one.completion_ids),
                "size": one.size,
                "lacking": lacking.get(one.cluster_id),
            }
            for one in asked.clusters
        ],
    }


def so_far(
    request: Envelope[LabelsRequested], labelling: Labelling, counts: Mapping[str, int]
) -> dict[str, float]:
    """Return how many prompts are done, and what the wanted answers still cost."""
    asked, answered = request.data, counts.get("answered", 0)
    declared = labelling.state.projects[asked.project].spec  # None: the project was removed
    spec, left = declared.drift.labels if declared else LabelsSpec(), max(0, asked.wanted - answered)
    return {
        "answered": answered,
        "out_of_scope": counts.get("out_of_scope", 0),
        "minutes": spec.minutes(left),
        "dollars": spec.cost(left),
    }


def progress(queue: LabelQueue, labelling: Labelling, person: str | None = None) -> dict[str, Any]:
    """Return the progress of a request, with the next prompt for ``person``."""
    figures = told_of(queue.request, labelling) | so_far(queue.request, labelling, queue.counts)
    return _ended(figures | {"prompts": len(queue.items), "next": queue.next_after(0, person)})


def _ended(told: dict[str, Any]) -> dict[str, Any]:
    """Return a request that no alarm ends as ended, once all its prompts are done."""
    is_done = told["asked_by"] and told["answered"] + told["out_of_scope"] >= told["prompts"]
    return told | ({"state": "ended", "outcome": "every prompt is done"} if is_done else {})


def _text(output: dict[str, Any] | str | None) -> str:
    if output is None:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "output", "is missing; give it")
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
