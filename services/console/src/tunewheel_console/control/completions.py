"""``GET /v1/projects/{project}/completions`` and one completion: what was asked and answered lately."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import FastAPI, Query, Request
from tunewheel_contracts.api.completions import CompletionDetail, CompletionSummary, LabelOrder, LabelsOrdered
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.turns import CompletionsChosen
from tunewheel_contracts.formats.label_prompts import request_for
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.actions import Actions
from tunewheel_console.completion_search import Wanted
from tunewheel_console.completions import SEARCH_SECONDS, Completions
from tunewheel_console.control.orders import declared
from tunewheel_console.control.paging import Paged, cursor_of, text_of
from tunewheel_console.control.resolving import LATEST, MOST_NAMED, View, resolve
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

COMPLETIONS = "/v1/projects/{project}/completions"
SHOWN = 200
"""How many characters of a text a list shows."""
LONGEST = 200
P = ParamSpec("P")
T = TypeVar("T")
Name = Annotated[str | None, Query(max_length=LONGEST)]


def add_completions(web: FastAPI, completions: Completions) -> None:
    """Add the routes, for the role reviewer as those of labels: they show texts of users.

    Refusals name the field. Status 409: people compare answers, and a filter would tell whose they are. 503:
    the completions cannot be searched at the moment.
    """

    @web.get(COMPLETIONS)
    @needs(Role.REVIEWER)
    async def list_completions(
        view: View,
        asked: Paged,
        q: Annotated[
            str,
            Query(
                max_length=LONGEST,
                description="Words, or their beginnings, of question and answer; in quotes: in this order.",
            ),
        ] = "",
        form: Annotated[
            str | None,
            Query(
                alias="format",
                max_length=LONGEST,
                description="`valid`, `invalid`, `unknown`, or a broken requirement such as `output_schema`.",
            ),
        ] = None,
        latency: Annotated[
            float | None, Query(ge=0, allow_inf_nan=False, description="The least seconds that it took.")
        ] = None,
        role: RouteRole | None = None,
        model: Name = None,
        label: Name = None,
        client: Annotated[
            str | None, Query(max_length=LONGEST, description="The name of the API key.")
        ] = None,
    ) -> Page[CompletionSummary]:
        """The latest completions, newest first, of which those that are searched for."""
        for field, told in (("role", role), ("model", model)):
            if told is not None and is_blind(view):
                reason = f"would tell whose answers they are that people compare in {view.name}; leave it out"
                raise Refused(HTTPStatus.CONFLICT, field, reason)
        wanted = Wanted(q, form, latency, role, model, client, label, asked.since)
        found, total = await searched(
            completions.find, view.name, wanted, view.spec.task if view.spec else None,
            limit=asked.limit + 1, after=None if asked.after is None else cursor_of(asked.after),
        )  # fmt: skip
        shown = found[: asked.limit]
        last = (shown[-1].completed_at, shown[-1].completion_id) if len(found) > len(shown) else None
        items = tuple(CompletionSummary(**_told(view, one)) for one in shown)
        return Page[CompletionSummary](items=items, next=last and text_of(last), total=total)

    @web.get(f"{COMPLETIONS}/{{completion_id}}")
    @needs(Role.REVIEWER)
    async def show_completion(view: View, completion_id: str) -> CompletionDetail:
        """A completion with its texts, and what it stands in."""
        beginning = None if completion_id == LATEST else completion_id
        ids = await searched(completions.named, view.name, beginning, most=MOST_NAMED + 1)
        name = resolve(completion_id, ids, field="completion_id", project=view.name)
        found = await searched(completions.show, view.name, name)
        if found is None:  # it was erased just now
            raise Refused(HTTPStatus.GONE, "completion_id", f"{name} was erased")
        data, copies = found
        more = CompletionDetail.model_fields.keys() - CompletionSummary.model_fields.keys()
        clusters = {key: one.data.cluster for key, one in view.wheel.facts.alarms.items()}
        return CompletionDetail(
            **_told(view, data),
            **data.model_dump(include=more),
            shadows=() if is_blind(view) else copies,
            alarms=tuple(key for key, one in clusters.items() if one and name in one.completion_ids),
            labels=tuple(key for key, one in view.labels.by_id.items() if name in one.data.completion_ids),
        )


def add_choosing(web: FastAPI, state: ConsoleState, actions: Actions, completions: Completions) -> None:
    @web.post("/v1/projects/{project}/labels", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.REVIEWER)
    async def request_labels(request: Request, project: str, order: LabelOrder) -> LabelsOrdered:
        """Ask for trusted answers to the questions of completions. The monitor makes a request of it, in
        which personal data is replaced."""
        declared(state, project)
        places = await searched(completions.places, project, order.completions)
        if unknown := next((name for name in order.completions if name not in places), None):
            reason = f"{project} has no completion {unknown!r}; see GET /v1/projects/{project}/completions"
            raise Refused(HTTPStatus.NOT_FOUND, "completions", reason)
        event = await actions.give(
            CompletionsChosen, project=project, request_id=request_for(places),
            completions=[
                {"completion_id": name, "partition": partition, "offset": offset}
                for name, (partition, offset) in sorted(places.items())
            ],
            principal=caller_of(request).principal,
        )  # fmt: skip
        return LabelsOrdered(project=project, command_id=event.id, request_id=event.data.request_id)


def is_blind(view: Project) -> bool:
    """Whether people compare answers of the project's models, so that nobody is told whose an answer is."""
    return bool(view.reviews.waiting)


async def searched(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Return what ``work`` finds, beside the event loop. Raises Refused: 503, the file is not open, or cannot
    be read in time."""
    try:
        return await asyncio.to_thread(work, *args, **options)
    except sqlite3.Error as error:
        reason = f"the completions cannot be searched at the moment: {error}; see /health/ready"
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            limit = f"{SEARCH_SECONDS:g} seconds of the processor"
            reason = f"the search takes more than {limit}; narrow it by since or words"
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, None, reason) from error


def _told(view: Project, data: InferenceCompleted) -> dict[str, Any]:
    from tunewheel_outputs.labels import label_of

    fields = CompletionSummary.model_fields.keys() & InferenceCompleted.model_fields.keys()
    hidden = {"role": None, "model_id": None, "shadow_of": None} if is_blind(view) else {}
    questions = [message.content for message in data.messages if message.role == "user"]
    return data.model_dump(include=fields) | hidden | {
        "label": label_of(data.output, view.spec.task) if view.spec and data.output else None,
        "question": questions[-1][:SHOWN] if questions else "",
        "answer": data.output[:SHOWN],
    }  # fmt: skip
