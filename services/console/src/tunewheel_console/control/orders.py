"""Routes by which operators have versions built, runs steered and evaluated, and models moved; and why the
registry would surely refuse a command on a model."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import Body, FastAPI, Request
from tunewheel_contracts.api.commands import (
    Accepted,
    BuildOrder,
    EvaluationOrder,
    EvaluationOrdered,
    ModelOrder,
    ModelOrdered,
    Order,
    RunOrdered,
)
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import ModelCommanded, Stage
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.actions import ALONE, Actions, ModelAction
from tunewheel_console.commands import Commands
from tunewheel_console.control.log import Log
from tunewheel_console.control.resolving import Key, View, dataset_of, named, project_of, resolve, run_of
from tunewheel_console.control.sweeps import sweep_of
from tunewheel_console.project import Project
from tunewheel_console.run import OF_SWEEPS
from tunewheel_console.state import ConsoleState

ACCEPTED = HTTPStatus.ACCEPTED
BASE = "base"
"""The alias of the bare base model, while it answers."""
WHOLE = re.compile(r"run-[0-9a-f]{20}")
"""The whole id of a run."""


def declared(state: ConsoleState, name: str) -> Project:
    """Return a project that has a spec. Raises Refused: 404 where the project is unknown, 409 where it was
    removed."""
    project = project_of(state, name)
    if project.spec is None:
        reason = f"{name!r} is not declared any more; put its spec first"
        raise Refused(HTTPStatus.CONFLICT, "project", reason)
    return project


def add_orders(api: FastAPI, state: ConsoleState, actions: Actions, log: Log) -> None:
    """Add the routes. Status 202: the command is on the log. 404: what it names is unknown. 409: it would be
    refused. 503: the broker is away, and nothing is kept."""

    @api.post("/v1/projects/{project}/datasets", status_code=ACCEPTED)
    @needs(Role.OPERATOR)
    async def build_dataset(
        request: Request, project: str, order: Annotated[BuildOrder, Body()] = BuildOrder(), key: Key = None
    ) -> Accepted:
        """Ask for a new dataset version now, whatever the build policy says."""
        view = declared(state, project)
        if order.release is not None and order.release not in {one.held for one in view.rejections}:
            reason = f"{order.release!r} does not wait; name the held version of the latest rejections"
            raise Refused(HTTPStatus.CONFLICT, "release", reason)
        if order.wait and order.release is None:
            await log.settled(order.patience_seconds)
        event = await actions.give(
            DatasetRequested, project=project, reason=BuildReason.COMMAND, release=order.release,
            principal=caller_of(request).principal, request=named(order, key),
        )  # fmt: skip
        return Accepted(project=project, command_id=event.id)

    @api.post("/v1/projects/{project}/runs/{run_id}/evaluations", status_code=ACCEPTED)
    @needs(Role.OPERATOR)
    async def evaluate_run(
        request: Request,
        view: View,
        run_id: str,
        order: Annotated[EvaluationOrder, Body()] = EvaluationOrder(),
        key: Key = None,
    ) -> EvaluationOrdered:
        """Judge a run again, against the model that is in production now."""
        run = run_of(view, run_id)
        if run.verdict is None:
            reason = f"{run.run_id} has no verdict yet; wait for its first evaluation"
            raise Refused(HTTPStatus.CONFLICT, "run_id", reason)
        dataset = dataset_of(view, order.dataset_id).data.dataset_id if order.dataset_id is not None else None
        told = order.model_dump(exclude={"criteria"})
        told |= {"criteria": order.criteria, "dataset_id": dataset, "request": named(order, key)}
        who = caller_of(request).principal
        event = await actions.give(EvalRequested, project=view.name, run_id=run.run_id, principal=who, **told)
        return EvaluationOrdered(project=view.name, command_id=event.id, run_id=run.run_id)

    @api.post("/v1/projects/{project}/runs/{run_id}/{action}", status_code=ACCEPTED)
    @needs(Role.OPERATOR)
    async def control_run(
        request: Request,
        view: View,
        run_id: str,
        action: TrainAction,
        order: Annotated[Order, Body()] = Order(),
        key: Key = None,
    ) -> RunOrdered:
        """Pause, resume or cancel a run. A run that failed, was cancelled or superseded can be resumed: it is
        trained once more. The id of a sweep names all its runs; a sweep that has ended stays as it is. A run
        that waits for a machine, of which there is no event yet, is named by its whole id."""
        if run_id.startswith(OF_SWEEPS):
            name = sweep_of(view, run_id)
            ended, again = view.sweeps[name].ended, False
        elif run_id not in view.runs and WHOLE.fullmatch(run_id):
            name, ended, again = run_id, None, False
        else:
            run = run_of(view, run_id)
            name, ended = run.run_id, run.ended
            again = action is TrainAction.RESUME and run.state in ("failed", "cancelled", "superseded")
        if ended and not again:
            raise Refused(HTTPStatus.CONFLICT, "action", f"{name} has ended ({ended})")
        event = await actions.give(
            TrainControl, project=view.name, run_id=name, action=action,
            principal=caller_of(request).principal, request=named(order, key),
        )  # fmt: skip
        return RunOrdered(project=view.name, command_id=event.id, run_id=name, action=action.value)

    @api.post("/v1/projects/{project}/models/{model_id}/{action}", status_code=ACCEPTED)
    @needs(Role.OPERATOR)
    async def command_model(
        request: Request, view: View, model_id: str, action: ModelAction, order: ModelOrder, key: Key = None
    ) -> ModelOrdered:
        """Move a model to another stage, or keep production as it is.

        ``model_id`` is an id, ``champion`` or ``challenger``. For the action ``stop`` it is ``champion`` or
        ``base``. The registry answers by an event whose cause is ``command_id``, or by ``command.refused``,
        which names it.
        """
        meant = _meant(view, model_id, action)
        objection = model_objection(view, meant, action, order)
        if objection is not None and not _has_waiting(view.commands):
            raise Refused(HTTPStatus.CONFLICT, *objection)
        seen = order.generation
        if view.desired is not None and seen is None and action is not ModelAction.STOP:
            seen = view.desired.generation
        event = await actions.give(
            ModelCommanded, project=view.name, model_id=meant, action=action.value, reason=order.reason,
            force=order.force, generation=seen, principal=caller_of(request).principal,
            request=named(order, key),
        )  # fmt: skip
        return ModelOrdered(project=view.name, command_id=event.id, model_id=meant, action=action.value)


def _meant(view: Project, asked: str, action: ModelAction) -> str:
    """Return the id of the model that a path names. Raises ``Refused`` where there is none."""
    if action is ModelAction.STOP and asked in ALONE:
        return asked
    found = view.desired.desired.model_id(asked) if view.desired else asked
    if asked == BASE and view.desired is not None:  # after `stop --to base` it is unpinned by this name
        bare = (route.model_id for route in view.desired.desired.routes if route.adapter is None)
        found = next(bare, None)
    known = [*reversed(view.stages), *(view.models - view.stages.keys())]
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, "model_id", f"{view.name} has no model {asked} now")
    return resolve(found, known, field="model_id", project=view.name)


def _has_waiting(commands: Commands) -> bool:
    """Return whether a command on a model is not answered yet: it may remove the objection to the next."""
    return any(
        one.type == "model.commanded" and commands.outcome(one).state == "waiting"
        for one in commands.by_id.values()
    )


IN_TRAFFIC = (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
UNJUDGED = (Stage.REGISTERED, Stage.UNDECIDED)
"""Stages from which only force promotes a model."""
WAITS = (Stage.EVALUATED, Stage.UNDECIDED)
"""Stages outside the traffic in which a model waits after its verdict."""


def model_objection(
    project: Project, model_id: str, action: ModelAction, order: ModelOrder
) -> tuple[str, str] | None:
    """Return field and reason; None: nothing that is known speaks against the command."""
    registered = project.wheel.facts.models.registrations.get(model_id)
    is_base = registered is not None and registered.data.kind == "base"
    if is_base and action not in (ModelAction.STOP, ModelAction.UNPIN):
        return "model_id", f"{model_id} is a base model: it only answers where no other model does"
    desired = project.desired
    if order.generation is not None and desired is not None and order.generation < desired.generation:
        return "generation", f"is {order.generation}, and {desired.generation} now; look at the models again"
    if model_id in ALONE:
        return None
    reason = _reason(project, model_id, action, forced=order.force, is_base=is_base)
    return None if reason is None else ("model_id", reason)


def _reason(
    project: Project, model_id: str, action: ModelAction, *, forced: bool, is_base: bool
) -> str | None:
    stage, pinned = project.stages.get(model_id, Stage.REGISTERED), project.pinned
    match action:
        case ModelAction.PROMOTE if stage is Stage.PRODUCTION:
            return f"{model_id} is in production already"
        case ModelAction.PROMOTE if pinned is not None:
            return f"{pinned} is pinned in production; unpin it first"
        case ModelAction.PROMOTE if stage in UNJUDGED and not forced:
            return f"{model_id} is {stage.value}; to promote it anyway, use force"
        case ModelAction.ROLLBACK if stage not in IN_TRAFFIC:
            return f"{model_id} is {stage.value}, not in traffic"
        case ModelAction.RETIRE if stage not in (*IN_TRAFFIC, *WAITS):
            return f"{model_id} is {stage.value}, not in traffic"
        case ModelAction.PIN if stage is not Stage.PRODUCTION:
            return f"{model_id} is {stage.value}; only a model in production can be pinned"
        case ModelAction.PIN if pinned == model_id:
            return f"{model_id} is pinned already"
        case ModelAction.UNPIN if pinned != model_id:
            return f"{model_id} is not pinned"
        case ModelAction.STOP if stage is not Stage.PRODUCTION and not is_base:
            return f"{model_id} is {stage.value}; stop can only leave the champion or the base"
        case _:
            return None
