"""``POST /v1/projects/{project}/playground``: one prompt, answered by base, champion and candidate.

The gateway answers as it answers the same caller's own requests, charged to the caller's limits. Each request
names its model, so it is *pinned*: no route is drawn, and neither drift, trials, labels nor turns count it.
It names no user, so it is nobody's traffic but the caller's.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
from fastapi import FastAPI, Request
from tunewheel_contracts.api.documents import PassageSearch
from tunewheel_contracts.api.playground import (
    Contestant,
    Playground,
    PlaygroundAnswer,
    PlaygroundOrder,
)
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Caller, Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.control.evaluations import unblinding
from tunewheel_console.control.models import model_of
from tunewheel_console.control.neighbours import Neighbour
from tunewheel_console.control.resolving import View
from tunewheel_console.project import Project

SECONDS = 120.0
"""The longest wait for an answer."""
DECIDERS = (Role.REVIEWER, Role.OPERATOR)
"""Who may see a candidate's answers: who decides about it."""
NO_RETRIEVAL = "the project's spec declares no retrieval"
OUT = frozenset({Stage.REJECTED, Stage.RETIRED, Stage.ROLLED_BACK, Stage.PRODUCTION})


@dataclass(frozen=True, slots=True)
class _Question:
    """One request to the gateway."""

    who: Contestant
    model_id: str
    asked: str
    """The gateway's name of the model."""
    passages: bool


def add_playground(web: FastAPI, gateway: Neighbour) -> None:
    @web.post("/v1/projects/{project}/playground")
    @needs(Role.APPLICATION)
    async def ask_models(request: Request, view: View, body: PlaygroundOrder) -> Playground:
        """Let several models answer one prompt, with and without passages. It counts as nobody's traffic. The
        gateway is asked as the caller; answers of a candidate are for reviewers and operators."""
        if view.spec is None:
            raise Refused(HTTPStatus.CONFLICT, "project", "is not declared any more; declare it again")
        models, left_out = _contestants(view, body, caller_of(request))
        retrieves = view.spec.retrieval is not None
        if body.passages != "without" and not retrieves:
            left_out["passages"] = NO_RETRIEVAL
        if body.passages == "with" and not retrieves:
            raise Refused(HTTPStatus.CONFLICT, "passages", NO_RETRIEVAL)
        ways = [way for way in (False, True) if body.passages != ("without" if way else "with")]
        questions = [
            _Question(who, *name, passages=way)
            for way in ways
            if retrieves or not way
            for who, name in models.items()
        ]
        if not questions:
            raise Refused(HTTPStatus.CONFLICT, "models", next(iter(left_out.values())))
        found = await _search(gateway, request, view.name, body) if questions[-1].passages else None
        answers = await asyncio.gather(*(_ask(gateway, request, view.spec, body, one) for one in questions))
        context = found.context if found is not None else ""
        judged = await asyncio.to_thread(_judged, view.spec, body.prompt, context, answers)
        sent = tuple(one for one in found.passages if one.sent) if found is not None else ()
        return Playground(
            project=view.name, prompt=body.prompt, answers=judged, left_out=left_out, found=sent
        )


def _contestants(
    view: Project, body: PlaygroundOrder, caller: Caller
) -> tuple[dict[Contestant, tuple[str, str]], dict[str, str]]:
    """Return by contestant the model's id and the gateway's name of it, and why others are left out."""
    found: dict[Contestant, tuple[str, str]] = {"base": (view.spec.base_model if view.spec else "", "base")}
    left_out = dict[str, str]()
    desired = view.desired.desired if view.desired is not None else None
    champion = desired.model_id("champion") if desired is not None else None
    if champion is None:
        left_out["champion"] = "no model of the project is in production: the base answers"
    else:
        found["champion"] = (champion, "champion")
    if "candidate" in body.models:
        try:
            name = _candidate(view, body.candidate, caller)
            found["candidate"] = (name, name)
        except Refused as error:
            if body.candidate is not None:
                raise
            left_out["candidate"] = str(error)
    return (
        {
            who: (name, asked if who == "candidate" else f"{view.name}/{asked}")
            for who, (name, asked) in found.items()
            if who in body.models
        },
        {who: why for who, why in left_out.items() if who in body.models},
    )


def _candidate(view: Project, asked: str | None, caller: Caller) -> str:
    """Return the candidate's id. ``asked``: the candidate that the request names.

    Raises Refused: 403, the caller may not see a candidate's answers; 404, there is no candidate; 409, the
    answers would tell a reviewer which model wrote which answer.
    """
    field = "candidate" if asked is not None else None
    if not any(caller.may(role, view.name) for role in DECIDERS):
        raise Refused(HTTPStatus.FORBIDDEN, field, "is shown to reviewers and operators of the project")
    if waiting := unblinding(view):
        reason = f"a review of {', '.join(waiting)} is open, and its answers would say whose are whose"
        raise Refused(HTTPStatus.CONFLICT, field, reason)
    if asked is not None:
        return model_of(view, asked, field="candidate").data.model_id
    desired = view.desired.desired if view.desired is not None else None
    trial = desired.model_id("challenger") if desired is not None else None
    models, stages = view.wheel.facts.models.registrations.values(), view.stages
    left = [one for one in models if one.data.kind != "base" and stages.get(one.data.model_id) not in OUT]
    newest = max(left, key=lambda one: (one.time, one.data.model_id), default=None)
    if trial is None and newest is None:
        raise Refused(HTTPStatus.NOT_FOUND, field, "no model waits for production")
    return trial or (newest.data.model_id if newest is not None else "")


async def _search(
    gateway: Neighbour, request: Request, project: str, body: PlaygroundOrder
) -> PassageSearch | None:
    """Return what the prompt finds; None: the gateway refuses, as an answer with passages then says too."""
    asked = {"project": project, "question": body.prompt[:4_000]}
    answer = await gateway.send(request, "POST", "/v1/search", json=asked)
    return PassageSearch.model_validate_json(answer.content) if answer.is_success else None


async def _ask(
    gateway: Neighbour, request: Request, spec: ProjectSpec, body: PlaygroundOrder, one: _Question
) -> PlaygroundAnswer:
    """Return an answer. Raises as ``Neighbour.send``."""
    sent: dict[str, Any] = {"model": one.asked, "messages": [{"role": "user", "content": body.prompt}]}
    if body.max_tokens is not None:
        sent["max_tokens"] = body.max_tokens
    if spec.retrieval is not None:
        sent["retrieval"] = "on" if one.passages else "off"
    told = PlaygroundAnswer(who=one.who, model_id=one.model_id, passages=one.passages)
    began = time.perf_counter()
    answer = await gateway.send(request, "POST", "/v1/chat/completions", json=sent, timeout=SECONDS)
    seconds = round(time.perf_counter() - began, 3)
    try:
        said = answer.json()
        if not answer.is_success:
            return told.model_copy(update={"refusal": said["error"]["message"], "seconds": seconds})
        return PlaygroundAnswer.model_validate(
            told.model_dump() | _read(said, answer.headers) | {"seconds": seconds}
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:  # such as a proxy's page
        reason = f"what answered for the gateway is none (status {answer.status_code})"
        raise TransientError(f"{reason}; correct TUNEWHEEL_GATEWAY_URL") from error


def _read(said: dict[str, Any], headers: httpx.Headers) -> dict[str, Any]:
    choice, usage = said["choices"][0], said.get("usage") or {}
    return {
        "model_id": said["model"],
        "text": choice["message"].get("content") or "",
        "refusal": choice["message"].get("refusal"),
        "finish_reason": choice.get("finish_reason"),
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "sources": json.loads(headers.get("x-tunewheel-sources", "[]")),
    }


def _judged(
    spec: ProjectSpec, prompt: str, context: str, answers: list[PlaygroundAnswer]
) -> tuple[PlaygroundAnswer, ...]:
    """Return ``answers`` with what they break of the task, as the gateway judges completions. ``context``:
    the passages, which an answer may quote."""
    from tunewheel_outputs.form import AnswerForm

    form = AnswerForm(spec.task)
    judged: list[PlaygroundAnswer] = []
    for one in answers:
        if one.refusal is None:
            broken = form.violations(one.text, f"{prompt}\n\n{context}" if one.passages else prompt)
            one = one.model_copy(update={"violations": broken, "format_valid": not broken})
        judged.append(one)
    return tuple(judged)
