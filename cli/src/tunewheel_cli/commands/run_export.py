"""run export: fetches a trained model, and writes it as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tunewheel_cli.calling import Call, Project, Run, calling
from tunewheel_cli.model_export import ModelDtype, ModelFormat


@calling
def command(
    call: Call,
    run: Run,
    directory: Annotated[Path, typer.Argument(help="New or empty; written to.", show_default=False)],
    project: Project,
    form: Annotated[
        ModelFormat,
        typer.Option("--format", help="safetensors for transformers and vLLM, gguf for llama.cpp."),
    ] = ModelFormat.SAFETENSORS,
    dtype: Annotated[
        ModelDtype | None,
        typer.Option(
            help="safetensors: float32 or bfloat16; gguf: float16, float32 or q8_0.",
            show_default="float32, gguf: float16",
        ),
    ] = None,
) -> None:
    """Write a run's model, the adapter merged into its base, for other tools.

    The files are read back; unless they answer 20 training prompts as the trained model does, none is left.
    """
    from tunewheel_cli.commands.progress import steps_bar
    from tunewheel_cli.model_export import export_model

    with steps_bar(silent=call.as_json) as note:
        written = export_model(call.client, project, run, directory, form=form, dtype=dtype, on_step=note)
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
