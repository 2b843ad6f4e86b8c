"""Draws the parts of a project's card. The page clears the card and draws it again after a change."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from nicegui import ui
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.monitoring import LabelsRequested
from tunewheel_contracts.events.training import TrainAction
from tunewheel_runtime.identity.roles import Role
from tunewheel_wheel.report import report

from tunewheel_console import rows
from tunewheel_console.actions import ALONE, ModelAction
from tunewheel_console.place import Place, Step, Tone
from tunewheel_console.project import Project
from tunewheel_console.queues import Review
from tunewheel_console.run import Verdict

COLOURS: dict[Tone, str] = {
    "working": "primary",
    "done": "positive",
    "waiting": "warning",
    "refused": "negative",
}


class Commands(Protocol):
    """The actions of the buttons, which show the person the result, and the roles that get each button."""

    def may(self, role: Role, project: str) -> bool: ...
    async def build_dataset(self, project: str) -> None: ...
    async def control(self, project: str, run_id: str, action: TrainAction) -> None: ...
    def review(self, request: Envelope[ReviewRequested], *, approved: bool) -> None: ...
    def command(self, project: str, model_id: str, action: ModelAction) -> None: ...
    def link_to(self, path: str) -> str: ...


def draw_wheel(place: Place | None) -> None:
    """Draw the seven steps, with the current one highlighted."""
    with ui.row().classes("items-center gap-1"):
        for number, step in enumerate(Step):
            if number:
                ui.label("→").classes("text-grey")
            lit = place is not None and place.step is step
            colour = COLOURS[place.tone] if place and lit else "grey-5"
            chip = ui.chip(step.value, color=colour, text_color="white" if lit else "black")
            chip.props("" if lit else "outline").mark(f"step-{step.value}-{'lit' if lit else 'unlit'}")
    if place is not None:
        ui.label(place.note).classes("text-caption text-grey-8")


def draw_project(project: Project, commands: Commands) -> None:
    """Draw the whole card of one project, its wheel first."""
    with ui.row().classes("w-full items-center"):
        ui.link(project.name, commands.link_to(f"projects/{project.name}")).classes("text-h6")
        draw_wheel(project.place)
        ui.space()
        if commands.may(Role.OPERATOR, project.name):
            build = ui.button("Build", icon="build", on_click=partial(commands.build_dataset, project.name))
            build.props("dense outline").tooltip(
                "Ask curate for a new dataset version from the present records"
            )
    traffic = ui.label().classes("text-caption")
    traffic.bind_text_from(project, "traffic").bind_visibility_from(project, "traffic")
    draw_turns(project)
    for run in project.pending_reviews:
        if run.asked is not None:
            draw_review(run.asked, commands)
    for review in project.reviews.waiting:
        draw_review_of_answers(review, commands)
    for labels in project.labels.waiting:
        draw_request_for_labels(labels, commands)
    with ui.grid().classes("w-full gap-4 grid-cols-1 lg:grid-cols-2"):
        draw_datasets(project, commands)
        draw_runs(project, commands)
        draw_scorecards(project, commands)
        draw_production(project, commands)


def draw_turns(project: Project) -> None:
    """Draw the open alarms, the reason why a turn waits, the running turn, the last turn's end, and what to
    do next."""
    lines = report(project.wheel, datetime.now(UTC))
    if not lines:
        return
    with ui.column().classes("w-full gap-1").mark(f"turns-{project.name}"):
        _heading("Alarms and turns")
        for about, text in lines:
            colour = {"alarm": "text-negative", "to do": "text-weight-bold"}.get(about, "")
            ui.label(f"{about}: {text}").classes(f"text-caption {colour}")


def draw_review(request: Envelope[ReviewRequested], commands: Commands) -> None:
    """Draw a run that waits for a person's verdict: its figures, and the two buttons."""
    run_id = request.data.run_id
    with ui.card().classes("w-full bg-amber-1 text-black gap-1").mark(f"review-{run_id}"):
        with ui.row().classes("w-full items-center"):
            ui.icon("person", color="warning")
            ui.label(f"{run_id} met its criteria and waits for a person")
            ui.space()
            if commands.may(Role.REVIEWER, request.data.project):
                draw_answers(request, commands)
        draw_figures(request.data)


def draw_review_of_answers(review: Review, commands: Commands) -> None:
    """Draw a review of answers. Its own page hides the models; this card may name them."""
    assert review.request is not None
    asked, pairs = review.request.data, review.comparisons
    review_id = pairs.request_id if pairs else getattr(asked, "review_id", None)
    card = ui.card().classes("w-full bg-amber-1 text-black").mark(f"review-{review_id}")
    with card, ui.row().classes("w-full items-center"):
        ui.icon("groups", color="warning")
        submitted = f"{len(review.submitters)} of {review.people} people have submitted"
        done = f"{len(review.compared)} compared" if pairs else submitted
        ui.label(f"{review.subject} waits for people to compare {asked.items} answers; {done}")
        ui.space()
        if commands.may(Role.REVIEWER, asked.project):
            ui.link("Compare answers", commands.link_to(f"reviews/{asked.project}/{review_id}"))


def draw_request_for_labels(request: Envelope[LabelsRequested], commands: Commands) -> None:
    """Draw a request for labels: prompts of production that wait for people's answers."""
    asked = request.data
    card = ui.card().classes("w-full bg-amber-1 text-black").mark(f"labels-{asked.request_id}")
    with card, ui.row().classes("w-full items-center"):
        ui.icon("edit_note", color="warning")
        about = f" about {', '.join(asked.keywords)}" if asked.keywords else ""
        ui.label(f"Questions{about} drifted and wait for {asked.wanted} trusted answers")
        ui.space()
        if commands.may(Role.REVIEWER, asked.project):
            ui.link("Answer them", commands.link_to(f"labels/{asked.project}/{asked.request_id}"))


def draw_answers(request: Envelope[ReviewRequested], commands: Commands) -> None:
    with ui.row().classes("no-wrap"):
        for word, approved, colour in (("Approve", True, "positive"), ("Reject", False, "negative")):
            decide = partial(commands.review, request, approved=approved)
            ui.button(word, color=colour, on_click=decide).props("dense")


def draw_figures(found: Verdict) -> None:
    """Draw every contestant's figures, and each criterion with the observed value."""
    metrics, contestants = rows.contestant_rows(found.contestants)
    _table(("role", "model", *metrics), contestants)
    for check in found.checks:
        with ui.row().classes("items-center gap-2 no-wrap"):
            icon, colour = ("check_circle", "positive") if check.passed else ("cancel", "negative")
            ui.icon(icon, color=colour)
            ui.label(f"{check.criterion.title}: {check.reason}").classes("text-caption")


def draw_datasets(project: Project, commands: Commands) -> None:
    with ui.column().classes("w-full gap-1"):
        _heading("Dataset versions")
        _table(("dataset", "reason", "records", "train", "holdout", "funnel"), rows.dataset_rows(project))
        ui.link("records that wait for a person", commands.link_to(f"projects/{project.name}/quarantine"))
        for rejected in list(project.rejections)[-1:]:
            ui.label("last rejected: " + "; ".join(rejected.reasons)).classes("text-negative text-caption")


def draw_runs(project: Project, commands: Commands) -> None:
    with ui.column().classes("w-full gap-1"):
        _heading("Runs")
        _table(("run", "dataset", "progress", "loss", "verdict"), rows.run_rows(project))
        steers = commands.may(Role.OPERATOR, project.name)
        for run in [run for run in project.runs.values() if steers and not run.ended]:
            with ui.row().classes("items-center"):
                ui.label(run.run_id).classes("text-caption")
                for action in TrainAction:
                    control = partial(commands.control, project.name, run.run_id, action)
                    ui.button(action.value, on_click=control).props("dense flat size=sm")
        options = rows.loss_options(project)
        if options["series"]:
            ui.echart(options).classes("w-full h-64").mark("loss-curve")


def draw_scorecards(project: Project, commands: Commands) -> None:
    """Draw the scorecard of the latest run that has one."""
    judged = [run for run in project.runs.values() if run.verdict is not None]
    with ui.column().classes("w-full gap-1"):
        _heading("Scorecard")
        if not judged or judged[-1].verdict is None:
            ui.label("no run has been evaluated yet").classes("text-caption text-grey")
            return
        found = judged[-1].verdict
        ui.label(f"{found.run_id}: {rows.verdict(judged[-1])}").classes("text-caption")
        whole = commands.link_to(f"v1/projects/{project.name}/runs/{found.run_id}/scorecard")
        ui.link("the whole scorecard, with every answer", whole, new_tab=True).classes("text-caption")
        draw_figures(found)


def draw_production(project: Project, commands: Commands) -> None:
    with ui.column().classes("w-full gap-1"):
        _heading("Routes")
        _table(("model", "role", "percent", "dataset"), rows.route_rows(project))
        stages = ", ".join(f"{model} {stage.value}" for model, stage in project.stages.items())
        if stages:
            ui.label(f"stages: {stages}").classes("text-caption")
        if commands.may(Role.OPERATOR, project.name):
            draw_models(project, commands)
        if project.rollouts:
            _heading("Rollout verdicts")
            _table(("model", "stage", "verdict", "reasons"), rows.rollout_rows(project))
        _heading("Drift")
        ui.link("what each detector measures now", commands.link_to(f"projects/{project.name}/detectors"))
        _table(("at", "detector", "statistic", "p", "window", "about"), rows.drift_rows(project))


def draw_models(project: Project, commands: Commands) -> None:
    """Draw the possible actions for each model, and the command that was refused last."""
    for model, stage, actions in rows.commanded_models(project):
        with ui.row().classes("items-center").mark(f"model-{model}"):
            pinned = ", pinned" if model == project.pinned else ""
            ui.label(f"{model} ({stage.value}{pinned})").classes("text-caption")
            for action in actions:
                order = partial(commands.command, project.name, model, action)
                ui.button(action.value, on_click=order).props("dense flat size=sm").mark(
                    f"{action.value}-{model}"
                )
    if project.desired is not None:
        draw_stop(project, commands)
    for refused in list(project.refusals)[-1:]:
        refusal = f"last refused: {refused.action} {refused.model_id}: {refused.field}: {refused.reason}"
        ui.label(refusal).classes("text-negative text-caption")


def draw_stop(project: Project, commands: Commands) -> None:
    """Draw the buttons that send all traffic to one model, and the one that ends this for a pinned base."""
    pinned, in_production = project.pinned, Stage.PRODUCTION in project.stages.values()
    with ui.row().classes("items-center"):
        ui.label("stop all traffic but to the").classes("text-caption")
        for name in ALONE if in_production else ALONE[1:]:
            order = partial(commands.command, project.name, name, ModelAction.STOP)
            ui.button(name, on_click=order).props("dense flat size=sm").mark(f"stop-{name}")
        if pinned is not None and pinned not in project.stages:
            order = partial(commands.command, project.name, pinned, ModelAction.UNPIN)
            ui.label(f"{pinned} answers alone").classes("text-caption")
            ui.button("unpin", on_click=order).props("dense flat size=sm").mark(f"unpin-{pinned}")


def _heading(text: str) -> None:
    ui.label(text).classes("text-subtitle2")


def _table(columns: tuple[str, ...], found: list[dict[str, Any]]) -> None:
    if not found:
        ui.label("none yet").classes("text-caption text-grey")
        return
    described = [{"name": name, "label": name, "field": name, "align": "left"} for name in columns]
    table = ui.table(columns=described, rows=found, pagination=5).classes("w-full")
    table.props("dense flat wrap-cells" + (" hide-pagination" if len(found) <= 5 else ""))
