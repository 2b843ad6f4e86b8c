"""Describes each event in one line, for people. Contracts hold no English, so words for some events stand
here; an event without words is described by its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events import (
    data,
    evaluation,
    lifecycle,
    monitoring,
    production,
    retrieval,
    training,
    turns,
    upstream,
)
from tunewheel_contracts.formats.plan import ValidationPlan

_EXCERPT = 60
_MOST_FIELDS = 6


def describe(envelope: Envelope[Any]) -> str:
    """Return an event's content in a few words, without its type."""
    return in_words(envelope.data)


def in_words(event: Event) -> str:
    """Return the data of an event in a few words, without its type."""
    words = _WORDS.get(type(event))
    return words(event) if words else _by_fields(event)


def figures(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in metrics.items())


def _by_fields(event: Event) -> str:
    """Return the event's subject, and its first values that are texts, numbers or switches and no default."""
    left_out = {"project", event.subject_field}
    values = {
        name: value
        for name, value in event.model_dump(mode="json", exclude=left_out, exclude_defaults=True).items()
        if isinstance(value, str | int | float) and not name.endswith("_sha256")
    }
    parts = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {_excerpt(str(value))}"
        for name, value in list(values.items())[:_MOST_FIELDS]
    ]
    return f"{event.ce_subject}: {', '.join(parts)}" if parts else event.ce_subject


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _EXCERPT else flat[: _EXCERPT - 1] + "…"


def _versioned(event: data.DatasetVersioned) -> str:
    counts = event.counts
    return (
        f"{event.dataset_id}: {counts.examples} examples of {counts.records} records "
        f"({counts.train} to train, {counts.holdout} held out), built by {event.reason.value}"
        + (", preliminary" if event.preliminary else "")
        + (
            f"; {event.missing_records} records were removed from the log unread"
            if event.missing_records
            else ""
        )
    )


def _verdict(event: Any) -> str:
    parts = [f"{c.role.value} {figures(c.metrics)}" for c in event.contestants]
    return f"{event.adapter.model_id}: " + "; ".join(parts)


def _failed(event: evaluation.EvalFailed) -> str:
    return f"{event.adapter.model_id}: " + "; ".join(event.reasons)


def _undecided(event: evaluation.EvalUndecided) -> str:
    rows = "row" if event.more_examples == 1 else "rows"
    more = f" ({event.more_examples} more held-out {rows} would tell)" if event.more_examples else ""
    return f"{event.adapter.model_id}: undecided{more}: " + "; ".join(event.reasons)


def routes_in_words(event: lifecycle.ServingDesired) -> str:
    """Return the models that are served."""
    routes = [f"{route.model_id} {route.role.value} {route.percent} %" for route in event.desired.routes]
    return ", ".join(routes) or "nothing"


def _started(event: training.TrainStarted) -> str:
    driver = f", driver {event.driver}, CUDA {event.cuda}" if event.driver is not None else ""
    device = f" ({event.device}{driver})" if event.device is not None else ""
    return f"{event.run_id}: {event.method.value}, {event.total_steps} steps on {event.dataset_id}{device}"


def _progressed(event: training.TrainProgressed) -> str:
    gpu, waited = event.gpu_memory_bytes, event.since_step_seconds
    parts = [
        f"step {event.step}/{event.total_steps}",
        f"loss {event.loss:.3f}",
        f"validation loss {event.validation_loss:.3f}" if event.validation_loss is not None else "",
        f"lr {event.learning_rate:.2g}",
        f"gradient {event.grad_norm:.2g}" if event.grad_norm is not None else "",
        f"{event.tokens_per_second:.0f} tok/s",
        f"{event.memory_bytes / 2**30:.1f} GiB" if event.memory_bytes is not None else "",
        f"{gpu / 2**30:.1f} GiB on the GPU" if gpu is not None else "",
        f"in the next step for {waited:.0f} s" if waited is not None else "",
        f"{event.eta_seconds:.0f} s left",
    ]
    return f"{event.run_id}: " + ", ".join(part for part in parts if part)


def _drift(event: production.DriftDetected) -> str:
    return (
        f"{event.detector}: {event.statistic_name} {event.statistic:.3g} (p {event.p_value:.2g}) over "
        f"{event.window.completions} completions against {event.dataset_id}"
    )


def _judged(event: production.RolloutJudged) -> str:
    return f"{event.model_id}: {event.stage} {event.verdict} after {event.requests} requests; " + "; ".join(
        event.reasons
    )


def _planned(event: training.TrainPlanned) -> str:
    plan = event.plan
    return (
        f"{event.run_id}: {plan.method.value} on {plan.device}, {plan.peak_bytes / 1e9:.1f} GB"
        f"{'' if plan.fits else ' (does not fit)'}, {plan.hours.low:.2f} to {plan.hours.high:.2f} hours"
        f"{_validation(plan.validation)}{''.join(f'; {caution}' for caution in event.cautions)}"
    )


def _validation(planned: ValidationPlan | None) -> str:
    if planned is None:
        return ""
    return (
        f", {planned.examples} examples validated every {planned.every_steps} steps "
        f"({planned.share:.1%} of training)"
    )


def _completed(event: turns.TurnCompleted) -> str:
    return (
        f"{event.turn_id}: {event.outcome}{_because('; '.join(event.reasons))}"
        f"{f'. {event.next_step}' if event.next_step else ''}"
    )


def _because(reason: str) -> str:
    return f", {_excerpt(reason)}" if reason else ""


_WORDS: dict[type, Callable[[Any], str]] = {
    upstream.TicketPublished: lambda e: f"{e.ticket_id}: {_excerpt(e.subject or e.body)}",
    upstream.DocumentPublished: lambda e: f"{e.document_id}: {_excerpt(e.title)}",
    upstream.DocumentWithdrawn: lambda e: f"{e.document_id}: withdrawn{_because(e.reason)}",
    upstream.ExamplePublished: lambda e: f"{e.example_id}: {_excerpt(e.input)}",
    upstream.FeedbackReceived: lambda e: (
        f"{e.completion_id}: {e.rating}{', corrected' if e.correction else ''}"
    ),
    upstream.ProjectDeclared: lambda e: f"{len(e.spec.criteria)} criteria, base {e.spec.base_model}",
    data.RecordIngested: lambda e: f"{e.record_id}: {e.kind.value} {e.source_id}",
    data.ErasureCompleted: lambda e: (
        f"{e.erasure_id}: {e.records} erased by {e.holder}, {len(e.dataset_ids)} dataset versions held some"
    ),
    data.DatasetVersioned: _versioned,
    data.DatasetRejected: lambda e: "; ".join(e.reasons),
    data.RecordJudged: lambda e: f"{e.record_id}: {e.verdict}{_because(e.comment)}",
    data.RedeliveryRequested: lambda e: f"{e.letter_id}: handle it again",
    training.TrainPlanned: _planned,
    training.TrainStarted: _started,
    training.TrainProgressed: _progressed,
    training.TrainCompleted: lambda e: (
        f"{e.adapter.model_id}: loss {e.final_loss:.3f}, {e.tokens} tokens in {e.wall_seconds:.0f} s"
    ),
    training.TrainFailed: lambda e: (
        f"{e.run_id}: dropped, superseded by {e.superseded_by}"
        if e.superseded_by
        else f"{e.run_id}: {e.field} {e.reason}"
    ),
    training.SweepRequested: lambda e: f"{len(e.recipes)} recipes are to be tried on {e.dataset_id}",
    training.SweepProgressed: lambda e: (
        f"{e.sweep_id}: {e.state}, {e.measured} measured{f', best {e.best}' if e.best else ''}"
        f"{_because(f'{e.field} {e.reason}'.strip())}"
    ),
    evaluation.EvalPassed: _verdict,
    evaluation.EvalFailed: _failed,
    evaluation.EvalRequested: lambda e: (
        f"{e.run_id} is to be judged again, against {e.against or 'the champion'}"
    ),
    evaluation.EvalUndecided: _undecided,
    evaluation.ReviewRequested: lambda e: f"{e.adapter.model_id} waits for a person",
    lifecycle.ModelPromoted: lambda e: f"{e.model_id}: {e.stage_before.value} → {e.stage.value}, {e.reason}",
    lifecycle.ModelRolledback: lambda e: f"{e.model_id}: out of {e.from_stage.value}, {e.reason}",
    lifecycle.ModelCommanded: lambda e: f"{e.action} {e.model_id}: {e.reason}",
    lifecycle.CommandRefused: lambda e: f"{e.action} {e.model_id} refused: {e.field} {e.reason}",
    lifecycle.ServingDesired: routes_in_words,
    production.InferenceCompleted: lambda e: (
        f"{e.model_id} ({e.role.value}): {e.completion_tokens} tokens in {e.latency_seconds:.2f} s"
    ),
    production.DriftDetected: _drift,
    production.RolloutJudged: _judged,
    monitoring.InferenceScored: lambda e: (
        f"{e.completion_id} ({e.of}): {e.outcome}{', novel' if e.novel else ''}"
        f"{', invalid' if e.format_valid is False else ''}"
    ),
    turns.CompletionsChosen: lambda e: (
        f"{e.request_id}: {len(e.completions)} questions of production need a trusted answer"
    ),
    turns.LabelsRequested: lambda e: (
        f"{e.request_id}: {e.wanted} trusted answers wanted about {', '.join(e.keywords) or 'what drifted'}; "
        f"{len(e.completion_ids)} prompts wait"
    ),
    turns.TurnCompleted: _completed,
    turns.TurnCompletedV2: _completed,
    retrieval.IndexVersioned: lambda e: (
        f"{e.index_id}: {e.changed} documents changed; it holds {e.counts.documents}, as "
        f"{e.counts.passages} passages"
        f"{f'; {e.counts.waiting} address the model and are held back' if e.counts.waiting else ''}"
    ),
    turns.TurnDecided: lambda e: f"{e.step}{f': {e.evidence}' if e.evidence else ''}",
}
