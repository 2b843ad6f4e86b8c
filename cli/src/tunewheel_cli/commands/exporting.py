"""export: writes a trained model as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tunewheel_cli.model_export import ModelDtype, ModelFormat
from tunewheel_cli.reach import Reach, Store, on_folder


@on_folder
def export(
    reach: Reach,
    run_id: Annotated[str, typer.Argument(help="As train.completed names it.", show_default=False)],
    directory: Annotated[Path, typer.Argument(help="New or empty; written to.", show_default=False)],
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
    store: Store = None,
) -> None:
    """Write a run's model, the adapter merged into its base, for other tools.

    The files are read back; unless they answer 20 training prompts as the trained model does, none is left.
    """
    from tunewheel_cli.commands.progress import steps_bar
    from tunewheel_cli.model_export import export_model

    with steps_bar(silent=reach.as_json) as note:
        written = export_model(
            run_id, directory, form=form.value, dtype=dtype.value if dtype else None,
            store_url=store or reach.var.store_url, on_step=note,
        )  # fmt: skip
    reach.show(written, describe(written))


def describe(written: dict[str, Any]) -> str:
    """Return a line or two about the written files, and their difference from the trained model."""
    parity = written["parity"]
    return (
        f"wrote {written['format']} in {written['dtype']} to {written['directory']}\n"
        f"log-probabilities on {parity['prompts']} prompts differ by {parity['mean_difference']:.2g} on "
        f"average ({parity['tolerance']} allowed); {parity['same_choice']:.1%} of the likeliest tokens are "
        "the same"
    )
