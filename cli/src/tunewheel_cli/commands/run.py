"""The commands about training runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewheel_cli.calling import Call, InvalidOption, Project, Request, Run, Timeout, calling, settle
from tunewheel_cli.listing import facts, listing
from tunewheel_cli.model_export import ModelDtype, ModelFormat

if TYPE_CHECKING:
    from tunewheel_contracts.api.runs import RunDetail


list_ = listing(
    "runs",
    "List the training runs of a project: how far each is, and how it was judged.",
    "{project} has no such run",
    {
        "run": "run_id", "state": "state",
        "step": lambda one: f"{one.step}/{one.total_steps}" if one.total_steps else "", "loss": "loss",
        "verdict": "verdict", "dataset": "dataset_id", "model": "model_id", "since": "created_at",
        "why": "why",
    },
    shorten=("why",),
    state=Annotated[
        str | None,
        typer.Option(help="Only these: waiting, training, paused, completed, failed, cancelled, superseded."),
    ],
)  # fmt: skip


def _speed(one: RunDetail) -> str | None:
    if (now := one.progress) is None:
        return None
    return f"{now.tokens_per_second:.0f} tokens/s, {now.eta_seconds:.0f} s left"


FACTS = {
    "run": "run_id", "state": "state",
    "step": lambda one: f"{one.step} of {one.total_steps}" if one.total_steps else None,
    "loss": lambda one: " → ".join(f"{at.loss:.3f}" for at in (*one.losses[:1], *one.losses[-1:])),
    "speed": _speed, "verdict": "verdict", "why": "why",
    "to mend": lambda one: one.failure and f"{one.failure.field} {one.failure.reason}",
    "dataset": "dataset_id", "model": "model_id", "base": "base", "method": "method", "device": "device",
    "began": "started_at", "ended": "ended_at", "evaluations": "evaluations",
}  # fmt: skip


@calling
def show(call: Call, run: Run, project: Project) -> None:
    """Show a training run: its progress, its losses, its verdict, and why it failed."""
    found = call.client.runs.show(project, run)
    call.show(found, lambda: _print_run(found))


def _print_run(found: RunDetail) -> None:
    from tunewheel_cli.texts import flat, print_facts

    print_facts(facts(found, FACTS))
    for one in found.controls:
        print(f"  {flat(one.at)}  {one.action}" + (f" by {flat(one.by)}" if one.by else ""))
    for caution in found.cautions:
        print(f"caution: {flat(caution)}")


def _control(action: str, about: str) -> Callable[..., None]:
    def control(
        call: Call, run: Run, project: Project, request: Request = None, timeout: Timeout = 30.0
    ) -> None:
        accepted = getattr(call.writer.runs, action)(project, run, request=request)
        command = settle(call, project, accepted, timeout)
        call.show(command or accepted, f"{action} asked of {run}")

    control.__doc__ = about
    return calling(control)


pause = _control("pause", "Pause a run: it writes a checkpoint and frees the machine.")
resume = _control(
    "resume",
    "Let a paused run go on. One that was cancelled, or failed, is trained once more as it was asked for.",
)
cancel = _control("cancel", "End a run.")


@calling
def evaluate(
    call: Call,
    run: Run,
    project: Project,
    criteria: Annotated[
        Path | None,
        typer.Option(help="YAML file with other criteria: the scorecard informs, and decides nothing."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Version whose held-out rows are used, where the run did not train on them.",
            show_default="the newest",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the request.")] = "",
    request: Request = None,
    timeout: Timeout = 1800.0,
) -> None:
    """Judge a run again, against whoever is in production now, by rows that it never saw."""
    from tunewheel_cli.scorecard_tables import print_evaluation
    from tunewheel_cli.spec_file import read_criteria

    wanted = read_criteria(criteria) if criteria is not None else ()
    accepted = call.writer.runs.evaluate(
        project, run, criteria=wanted, dataset_id=dataset, reason=reason, request=request
    )
    done = settle(call, project, accepted, timeout)
    if done is None:
        call.show(accepted, f"asked for; look with `tunewheel run scorecard {run} --project {project}`")
        return
    found = call.client.evaluations.show(project, done.led_to or "latest")
    call.show(found, lambda: print_evaluation(found))


@calling
def scorecard(
    call: Call,
    run: Run,
    project: Project,
    evaluation: Annotated[
        str | None, typer.Option(help="Which evaluation of the run.", show_default="the last")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="File to write the page to; it needs no other host.")
    ] = None,
) -> None:
    """Show how a run was judged: each criterion with its interval, and what was left out."""
    from tunewheel_client import NotFound

    from tunewheel_cli.scorecard_tables import print_evaluation

    if html is not None and evaluation is not None:
        raise InvalidOption("--html: is the page of the last verdict; leave --evaluation out")

    of_run = call.client.runs.show(project, run)
    if evaluation is None and not of_run.evaluations:
        raise NotFound(f"run: {of_run.run_id} is not judged yet; `tunewheel status` says whether eval runs")
    found = call.client.evaluations.show(project, evaluation or of_run.evaluations[0])
    if html is not None:
        html.write_text(call.client.runs.scorecard(project, of_run.run_id), "utf-8")
    call.show(found, lambda: print_evaluation(found))
    if html is not None:
        call.tell(f"page: {html}")


@calling
def export(
    call: Call,
    run: Run,
    directory: Annotated[Path, typer.Argument(help="New or empty; written to.", show_default=False)],
    project: Project,
    form: Annotated[
        ModelFormat,
        typer.Option(
            "--format", help="safetensors for transformers and vLLM, gguf for llama.cpp and Ollama."
        ),
    ] = ModelFormat.SAFETENSORS,
    dtype: Annotated[
        ModelDtype | None,
        typer.Option(
            help="safetensors: float32 or bfloat16; gguf: float16, float32, q8_0 or q4_k_m.",
            show_default="float32, gguf: float16",
        ),
    ] = None,
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            envvar="TUNEWHEEL_LLAMA_CPP",
            show_default=False,
            help="gguf: folder of llama.cpp's sources, whose programs write the file.",
        ),
    ] = None,
) -> None:
    """Write a run's model, the adapter merged into its base, for other tools.

    The files are read back; unless they answer 20 training prompts as the trained model does, none is left.
    """
    from tunewheel_cli.commands.progress import steps_bar
    from tunewheel_cli.model_export import export_model

    with steps_bar(silent=call.as_json) as note:
        written = export_model(
            call.client, project, run, directory, form=form, dtype=dtype, llama_cpp=llama_cpp, on_step=note
        )
    call.show(written, describe(written))


def describe(written: dict[str, Any]) -> str:
    """Return a line or two about the written files, and their difference from the trained model."""
    parity = written["parity"]
    return (
        f"wrote {written['format']} in {written['dtype']} to {written['directory']}\n"
        f"log-probabilities on {parity['prompts']} prompts differ by {parity['mean_difference']:.2g} on "
        f"average ({parity['tolerance']} allowed); {parity['same_choice']:.1%} of the likeliest tokens are "
        "the same"
    )
