"""Derives ``serving.desired`` from the state of a project and its spec."""

from __future__ import annotations

from tunewheel_contracts.events.lifecycle import ServingDesired, Stage
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_registry.state import Model, State, base_model_id

MOST_STAND_INS = 5
"""Most stand-ins that are named. If an engine cannot load a champion, for example because of its rank, it can
usually not load the earlier champions either."""


def desired_state(state: State, spec: ProjectSpec) -> ServingDesired | None:
    """Return the desired state of serving; None while the project has no registered model.

    The champion answers, or the base model where there is no champion. The canary answers its share. After
    the command ``stop`` one model answers alone.
    """
    base = _base(state)
    if base is None:
        return None
    stopped = state.stopped_to
    canary = None if stopped else state.in_stage(Stage.CANARY)
    shadow = None if stopped else state.in_stage(Stage.SHADOW)
    canary_percent = spec.rollout.canary.percent if canary else 0
    routes = [_production(state, base, 100 - canary_percent)]
    if canary:
        routes.append(_route(canary, RouteRole.CANARY, canary_percent))
    if shadow:
        routes.append(_route(shadow, RouteRole.SHADOW, spec.rollout.shadow.percent))
    return ServingDesired(
        project=state.project,
        generation=state.generation,
        base=base,
        system_prompt=spec.task.system_prompt,
        desired=DesiredRoutes(routes=tuple(routes)),
        stand_ins=_stand_ins(state, base),
        spent=state.spent,
    )


def _base(state: State) -> BaseModelRef | None:
    """Return the base of the champion that answers, or else the base that was registered last."""
    answers = state.stopped_to or state.champion or state.base
    return answers.registration.base if answers else None


def _production(state: State, base: BaseModelRef, percent: int) -> Route:
    champion = _champion(state)
    if champion is not None:
        return _route(champion, RouteRole.PRODUCTION, percent)
    return _bare(base, percent)


def _champion(state: State) -> Model | None:
    """Return the champion that answers; None: the base model answers."""
    stopped = state.stopped_to
    return None if stopped is not None and stopped.registration.kind == "base" else state.champion


def _stand_ins(state: State, base: BaseModelRef) -> tuple[Route, ...]:
    """Return the models that may answer while the champion cannot be loaded. A gateway that has just started
    needs this list, since it has no previous model that could go on answering."""
    if _champion(state) is None:
        return ()
    fitting = (model for model in state.predecessors if _may_fit(model, base))
    before = tuple(_route(model, RouteRole.PRODUCTION, 100) for model in fitting)
    return before[:MOST_STAND_INS] or (_bare(base, 100),)


def _may_fit(model: Model, base: BaseModelRef) -> bool:
    """Return whether ``model`` can answer on an engine of ``base``. Revisions are not compared: an engine may
    still serve an earlier one, and the gateway checks the revision before it lets a judged model answer."""
    own = model.registration.base
    return own == base or (own.name == base.name and model.bundle is not None)


def _bare(base: BaseModelRef, percent: int) -> Route:
    return Route(model_id=base_model_id(base), role=RouteRole.PRODUCTION, percent=percent, adapter=None)


def _route(model: Model, role: RouteRole, percent: int) -> Route:
    known = model.registration
    return Route(
        model_id=known.model_id,
        role=role,
        percent=percent,
        adapter=known.adapter,
        dataset_id=known.dataset_id,
        bundle=model.bundle,
    )
