"""Turns the state into rows of tables and options of charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided, ReviewRequested
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.training import TrainProgressed
from tunewheel_contracts.formats.scorecard import Contestant
from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_console.actions import ModelAction
from tunewheel_console.project import Project
from tunewheel_console.run import Run

Row = dict[str, Any]
CURVES = 4
"""How many loss curves are drawn, of the latest runs."""
SHOWN_ROLES = (Role.VIEWER, Role.REVIEWER, Role.OPERATOR)


def dataset_rows(project: Project) -> list[Row]:
    """Return the dataset versions, newest first."""
    versions = sorted(project.datasets.values(), key=lambda one: one.time, reverse=True)
    return [
        {
            "dataset": one.data.dataset_id,
            "reason": one.data.reason.value,
            "records": one.data.counts.records,
            "train": one.data.counts.train,
            "holdout": one.data.counts.holdout,
            "funnel": ", ".join(_funnel(one.data)),
        }
        for one in versions
    ]


def _funnel(data: DatasetVersioned) -> list[str]:
    lost = (
        [f"{data.missing_records} records were removed from the log unread"] if data.missing_records else []
    )
    return lost + [f"{s.stage} {s.entered} → {s.left}" for s in data.funnel if s.entered != s.left]


def run_rows(project: Project) -> list[Row]:
    """Return the runs, newest first."""
    return [
        {
            "run": run.run_id,
            "dataset": run.dataset_id,
            "progress": progress(run),
            "loss": f"{run.latest.loss:.3f}" if run.latest is not None else "",
            "verdict": verdict(run),
        }
        for run in reversed(project.runs.values())
    ]


def progress(run: Run) -> str:
    if run.ended:
        return run.ended
    figures = _figures(run.latest) if run.latest is not None else []
    paused = ["paused"] if run.paused else []
    return ", ".join([*paused, f"step {run.step} of {run.total_steps}", *figures])


def _figures(step: TrainProgressed) -> list[str]:
    """Return the figures of a step, without the loss."""
    figures = [f"lr {step.learning_rate:.2g}"]
    if step.grad_norm is not None:
        figures.append(f"gradient {step.grad_norm:.2g}")
    figures.append(f"{step.tokens_per_second:.0f} tok/s")
    if step.memory_bytes is not None:
        figures.append(f"{step.memory_bytes / 2**30:.1f} GiB")
    if step.gpu_memory_bytes is not None:
        figures.append(f"{step.gpu_memory_bytes / 2**30:.1f} GiB on the GPU")
    if step.since_step_seconds is not None:
        figures.append(f"in the next step for {step.since_step_seconds:.0f} s")
    return [*figures, f"{step.eta_seconds:.0f} s left"]


def verdict(run: Run) -> str:
    match run.verdict:
        case EvalPassed():
            return "passed"
        case EvalFailed():
            return "failed: " + "; ".join(run.verdict.reasons)
        case EvalUndecided():
            return "undecided: " + "; ".join(run.verdict.reasons)
        case ReviewRequested():
            if run.verdict.review_set is not None:
                return "waits for its reviewers"
            return (
                "waits for a person"
                if run.awaits_review
                else f"review {next(reversed(run.reviews.values())).verdict}"
            )
        case _:
            return "open"


def contestant_rows(contestants: Iterable[Contestant]) -> tuple[list[str], list[Row]]:
    """Return (metric names, one row per contestant)."""
    rows: list[Row] = []
    metrics: dict[str, None] = {}
    for contestant in contestants:
        metrics |= dict.fromkeys(contestant.metrics)
        figures = {name: f"{value:.3g}" for name, value in contestant.metrics.items()}
        rows.append({"role": contestant.role.value, "model": contestant.model_id, **figures})
    return list(metrics), rows


def route_rows(project: Project) -> list[Row]:
    routes = project.desired.desired.routes if project.desired else ()
    return [
        {
            "model": route.model_id,
            "role": route.role.value,
            "percent": f"{route.percent} %",
            "dataset": route.dataset_id or "none",
        }
        for route in routes
    ]


def drift_rows(project: Project) -> list[Row]:
    """Return the detected drifts, newest first."""
    return [
        {
            "at": f"{at:%Y-%m-%d %H:%M:%S}",
            "detector": data.signal or data.detector,
            "statistic": f"{data.statistic_name} {data.statistic:.3f}",
            "p": f"{data.p_value:.2g}",
            "window": f"{data.window.completions} completions",
            "about": ", ".join(data.cluster.keywords) if data.cluster else "",
        }
        for at, data in reversed(project.drifts)
    ]


_ACTIONS: Mapping[Stage, tuple[ModelAction, ...]] = MappingProxyType(
    {
        Stage.UNDECIDED: (ModelAction.RETIRE, ModelAction.REJECT),
        Stage.EVALUATED: (ModelAction.PROMOTE, ModelAction.RETIRE, ModelAction.REJECT),
        Stage.SHADOW: (ModelAction.PROMOTE, ModelAction.ROLLBACK, ModelAction.RETIRE, ModelAction.REJECT),
        Stage.CANARY: (ModelAction.PROMOTE, ModelAction.ROLLBACK, ModelAction.RETIRE, ModelAction.REJECT),
        Stage.PRODUCTION: (ModelAction.ROLLBACK, ModelAction.PIN, ModelAction.RETIRE, ModelAction.REJECT),
        Stage.RETIRED: (ModelAction.PROMOTE, ModelAction.REJECT),
        Stage.ROLLED_BACK: (ModelAction.PROMOTE, ModelAction.REJECT),
    }
)
"""By stage of a model, the actions that the page offers. The registry decides whether it carries them out.
Actions that need force are left to the command line."""
MOST_COMMANDED = 8


def commanded_models(project: Project) -> list[tuple[str, Stage, tuple[ModelAction, ...]]]:
    """Return the models with possible actions, the last changed first."""
    latest = reversed(project.stages.items())
    found = [(model, stage, _actions(project, model, stage)) for model, stage in latest]
    return [one for one in found if one[2]][:MOST_COMMANDED]


def _actions(project: Project, model: str, stage: Stage) -> tuple[ModelAction, ...]:
    plain = _ACTIONS.get(stage, ())
    if model != project.pinned:
        return plain
    return tuple(ModelAction.UNPIN if one is ModelAction.PIN else one for one in plain)


def rollout_rows(project: Project) -> list[Row]:
    """Return the rollout verdicts, newest first."""
    return [
        {
            "model": one.data.model_id,
            "stage": one.data.stage,
            "verdict": one.data.verdict,
            "reasons": "; ".join(one.data.reasons),
        }
        for one in sorted(project.rollouts.values(), key=lambda one: one.time, reverse=True)
    ]


def loss_options(project: Project) -> Row:
    """Return the ECharts options of the latest runs' losses by step."""
    runs = [run for run in project.runs.values() if run.losses][-CURVES:]
    return {
        "animation": False,
        "grid": {"left": 48, "right": 40, "top": 48, "bottom": 32},
        "legend": {"top": 0, "type": "scroll"},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "value", "name": "step"},
        "yAxis": {"type": "value", "name": "loss", "scale": True},
        "series": [
            {"type": "line", "name": run.run_id, "showSymbol": False, "data": run.curve()} for run in runs
        ],
    }


def roles(caller: Caller) -> str:
    """Return the roles of ``caller`` on this page, each with its projects."""
    return "; ".join(
        f"{role.value} in {'every project' if projects is None else ', '.join(sorted(projects))}"
        for role in SHOWN_ROLES
        if (projects := caller.projects_of(role)) is None or projects
    )
