"""Why the registry would surely refuse a command on a model, as far as the console knows the state. Pure."""

from __future__ import annotations

from tunewheel_contracts.api.commands import ModelOrder
from tunewheel_contracts.events.lifecycle import Stage

from tunewheel_console.actions import ALONE, ModelAction
from tunewheel_console.project import Project

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
