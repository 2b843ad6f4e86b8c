"""Exports a run's model: ``python -m tunewheel_train.exporting.export FETCHED DIRECTORY``.

``tunewheel run export`` calls this, after it has fetched the run over the API: ``FETCHED`` holds the run's
``manifest.json``, its dataset's as ``dataset.json``, the model in ``files``, and training examples in
``examples.jsonl``. The written files are
read back and compared with the trained model on the prompts of 20 examples. They get their final name only if
both agree (``merging.py``). Standard output is JSON Lines: ``{"step", "done", "of"}`` for progress, then
``{"directory", "format", "dtype", "parity"}``. Exit codes: 0 written, 1 refused or not found, 2 wrong option,
5 the hub does not answer. Where ``TUNEWHEEL_STORE_URL`` is set, the base is taken from its mirror.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.base_mirror import fetch_base
from tunewheel_runtime.logs import configure_logs
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.errors import NotExported
from tunewheel_train.settings import Settings

if TYPE_CHECKING:
    from tunewheel_train.exporting.merging import Form, Parity

PROMPTS = 20
OLLAMA_CONTEXT = 4096
DTYPES: Mapping[str, tuple[str, ...]] = {
    "safetensors": ("float32", "bfloat16"),
    "gguf": ("float16", "float32", "q8_0", "q4_k_m"),
}
"""The dtypes of each format. The first is the default."""


def main(arguments: list[str] | None = None) -> int:
    """Export one run; returns the exit code."""
    from tunewheel_basemodel.errors import ModelFilesError

    parser = argparse.ArgumentParser(
        prog="tunewheel_train.exporting.export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("fetched", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--format", choices=tuple(DTYPES), default="safetensors")
    parser.add_argument("--dtype", choices=sorted({dtype for known in DTYPES.values() for dtype in known}))
    parser.add_argument("--llama-cpp", type=Path)
    chosen = parser.parse_args(arguments)
    dtype = chosen.dtype or DTYPES[chosen.format][0]
    if dtype not in DTYPES[chosen.format]:
        parser.error(f"--dtype {dtype}: {chosen.format} takes {' or '.join(DTYPES[chosen.format])}")
    try:
        manifest = decode_data(RunManifest, (chosen.fetched / "manifest.json").read_bytes())
        form = _form(chosen.format, dtype, chosen.llama_cpp)
        spec = decode_data(DatasetManifest, (chosen.fetched / "dataset.json").read_bytes()).spec
        parity = export(manifest, spec, chosen.fetched, chosen.directory, form)
    except TransientError as error:
        print(f"export: {error}", file=sys.stderr)
        return 5
    except (TunewheelError, ModelFilesError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print_line(
        {
            "run_id": manifest.run_id, "directory": str(chosen.directory), "format": chosen.format,
            "dtype": dtype, "parity": asdict(parity),
        }
    )  # fmt: skip
    return 0


def print_line(told: Mapping[str, Any]) -> None:
    print(json.dumps(told), flush=True)


def export(manifest: RunManifest, spec: ProjectSpec, fetched: Path, directory: Path, form: Form) -> Parity:
    """Write the model of a run, which trained by ``spec``, to ``directory``; returns the parity found.

    Raises NotExported, BaseModelNotFound, InvalidAdapter, and TransientError: this machine cannot store the
    base that it takes from the mirror.
    """
    check_target(directory)
    from tunewheel_basemodel.locate import locate_base_model

    from tunewheel_train.exporting.merging import STEPS, Trained, as_trained, export_merged
    from tunewheel_train.model.modeling import load_tokenizer

    def told(step: str) -> None:
        print_line({"step": step, "done": STEPS.index(step), "of": len(STEPS)})

    adapter, settings = manifest.adapter, Settings()
    name, revision = adapter.base.name, adapter.base.revision
    if "store_url" in settings.model_fields_set:  # on a machine of the wheel
        asyncio.run(fetch_base(ObjectStore(settings.store_url), name, revision, settings.cache_dir))
    base = locate_base_model(name, cache_dir=settings.cache_dir, revision=revision)
    variables = spec.task.chat_template_kwargs
    trained = Trained(
        adapter.model_id, base, fetched / "files", quantization=adapter.quantization, whole=adapter.is_whole,
        variables=variables,
    )  # fmt: skip
    rows = [json.loads(line) for line in (fetched / "examples.jsonl").read_text("utf-8").splitlines()]
    prompts = _prompts(rows, as_trained(load_tokenizer(base), variables), manifest.recipe.max_tokens)
    parameters = _parameters(spec, manifest.recipe.max_tokens)
    form = replace(form, system=spec.task.system_prompt, parameters=parameters)
    return export_merged(trained, directory.absolute(), prompts=prompts, form=form, on_step=told)


def check_target(directory: Path) -> None:
    """Refuse to write over anything. Raises NotExported."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise NotExported(f"{directory} is not an empty directory; name another, or empty it")


def _form(form: str, dtype: str, llama_cpp: Path | None) -> Form:
    from tunewheel_train.exporting.gguf import find_programs
    from tunewheel_train.exporting.merging import Form

    encoding: Any = dtype
    if form == "gguf":
        return Form(gguf=encoding, programs=find_programs(llama_cpp, encoding))
    return Form(precision=encoding)


def _parameters(spec: ProjectSpec, max_tokens: int) -> dict[str, float]:
    """Return how answers are written in evaluation and where they are served, by Ollama's names. Its defaults
    draw tokens and punish repetition, and on a small machine a conversation has 4,096 tokens. ``max_tokens``:
    of the longest example that was trained."""
    decoding = spec.evaluation.decoding
    found: dict[str, float] = {
        "temperature": decoding.temperature, "top_k": 0, "top_p": decoding.top_p,
        "repeat_penalty": decoding.repetition_penalty, "repeat_last_n": -1,
        "num_predict": spec.task.max_output_tokens,
    }  # fmt: skip
    longest = max_tokens + spec.task.max_output_tokens
    more = {"seed": decoding.seed, "num_ctx": longest if longest > OLLAMA_CONTEXT else None}
    return found | {name: value for name, value in more.items() if value is not None}


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
    configure_logs(service="export", level="WARNING", json=False)  # to standard error
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that downloaded files are deleted
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a normal exit may abort if threads of polars or the store are just starting
