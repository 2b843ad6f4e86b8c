"""Exports a run's model: ``python -m tunewheel_train.exporting.export RUN_ID DIRECTORY``.

``tunewheel run export`` calls this. It reads the store of the train service (``TUNEWHEEL_STORE_URL``). The
written files are read back and compared with the trained model on 20 prompts of the training examples. They
get their final name only if both agree (``merging.py``). Standard output is JSON Lines: ``{"step", "done",
"of"}`` for progress, then ``{"directory", "format", "dtype", "parity"}``. Exit codes: 0 written, 1 refused or
not found, 2 wrong option, 5 the store does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train.errors import NotExported
from tunewheel_train.runs.runs import manifest_path
from tunewheel_train.settings import Settings

if TYPE_CHECKING:
    from tunewheel_train.exporting.merging import Form, Parity, Trained

PROMPTS = 20
DTYPES: Mapping[str, tuple[str, ...]] = {
    "safetensors": ("float32", "bfloat16"),
    "gguf": ("float16", "float32", "q8_0"),
}
"""The dtypes of each format. The first is the default."""

Tell = Callable[[Mapping[str, Any]], None]


def main(arguments: list[str] | None = None) -> int:
    """Export one run; returns the exit code."""
    from tunewheel_basemodel.errors import ModelFilesError

    parser = argparse.ArgumentParser(
        prog="tunewheel_train.exporting.export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("run_id")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--format", choices=tuple(DTYPES), default="safetensors")
    parser.add_argument("--dtype", choices=sorted({dtype for known in DTYPES.values() for dtype in known}))
    chosen = parser.parse_args(arguments)
    dtype = chosen.dtype or DTYPES[chosen.format][0]
    if dtype not in DTYPES[chosen.format]:
        parser.error(f"--dtype {dtype}: {chosen.format} takes {' or '.join(DTYPES[chosen.format])}")
    try:
        parity = export(chosen.run_id, chosen.directory, chosen.format, dtype, Settings(), tell=print_line)
    except TransientError as error:
        print(f"export: {error}", file=sys.stderr)
        return 5
    except (TunewheelError, ArtifactMissing, CorruptArtifact, ModelFilesError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print_line(
        {
            "run_id": chosen.run_id, "directory": str(chosen.directory), "format": chosen.format,
            "dtype": dtype, "parity": asdict(parity),
        }
    )  # fmt: skip
    return 0


def print_line(told: Mapping[str, Any]) -> None:
    print(json.dumps(told), flush=True)


def export(run_id: str, directory: Path, form: str, dtype: str, settings: Settings, *, tell: Tell) -> Parity:
    """Write the model of ``run_id`` to ``directory``; returns the parity found.

    Raises NotExported, BaseModelNotFound, InvalidAdapter, and what the store raises.
    """
    check_target(directory)
    store = ObjectStore(settings.store_url)
    manifest, rows = asyncio.run(_read(store, run_id))
    from tunewheel_train.exporting.merging import beside

    with beside(directory.absolute()) as folder:
        trained = _fetch(store, manifest, folder / "fetched", settings)
        return _write(trained, directory.absolute(), rows, manifest, _form(form, dtype), tell)


def check_target(directory: Path) -> None:
    """Refuse to write over anything. Raises NotExported."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise NotExported(f"{directory} is not an empty directory; name another, or empty it")


def _form(form: str, dtype: str) -> Form:
    from tunewheel_train.exporting.merging import Form

    encoding: Any = dtype
    return Form(gguf=encoding) if form == "gguf" else Form(precision=encoding)


def _write(
    trained: Trained,
    directory: Path,
    rows: list[dict[str, Any]],
    manifest: RunManifest,
    form: Form,
    tell: Tell,
) -> Parity:
    from tunewheel_train.exporting.merging import STEPS, export_merged
    from tunewheel_train.model.modeling import load_tokenizer

    def told(step: str) -> None:
        tell({"step": step, "done": STEPS.index(step), "of": len(STEPS)})

    prompts = _prompts(rows, load_tokenizer(trained.base), manifest.recipe.max_tokens)
    return export_merged(trained, directory, prompts=prompts, form=form, on_step=told)


def _fetch(store: ObjectStore, manifest: RunManifest, folder: Path, settings: Settings) -> Trained:
    """Find the base model, and download the run's files to ``folder``. Raises BaseModelNotFound."""
    from tunewheel_basemodel.locate import locate_base_model

    from tunewheel_train.exporting.merging import Trained

    adapter = manifest.adapter
    trained_on = adapter.base
    base = locate_base_model(trained_on.name, cache_dir=settings.cache_dir, revision=trained_on.revision)
    files = asyncio.run(store.fetch_directory(adapter.files, adapter.path, folder))
    return Trained(adapter.model_id, base, files, quantization=adapter.quantization, whole=adapter.is_whole)


async def _read(store: ObjectStore, run_id: str) -> tuple[RunManifest, list[dict[str, Any]]]:
    """The run's manifest, and the training examples by id."""
    import polars as pl

    content = await store.read(manifest_path(run_id))
    if content is None:
        raise NotExported(f"{run_id} has no manifest in the store; name a run that is complete")
    manifest = decode_data(RunManifest, content)
    dataset = decode_data(DatasetManifest, await store.get(manifest.dataset))
    frame = pl.read_parquet(io.BytesIO(await store.get(dataset.train)))
    return manifest, frame.sort("example_id").to_dicts()


def _prompts(rows: Iterable[dict[str, Any]], tokenizer: Any, max_tokens: int) -> list[list[int]]:
    """Return the prompts of the first ``rows`` that the run trained on; refused rows are left out."""
    from tunewheel_basemodel.chat import encode_chat
    from tunewheel_basemodel.errors import InvalidChat

    prompts: list[list[int]] = []
    for row in rows:
        with contextlib.suppress(InvalidChat):
            prompts.append(encode_chat(tokenizer, row["messages"])[0][:max_tokens])
        if len(prompts) == PROMPTS:
            break
    return prompts


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that downloaded files are deleted
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a normal exit may abort if threads of polars or the store are just starting
