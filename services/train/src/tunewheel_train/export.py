"""``python -m tunewheel_train.export RUN_ID DIRECTORY``: a run's model as one directory of safetensors.

Reads the store that the train service uses (``TUNEWHEEL_STORE_URL``). The model is compared with the adapter
on 20 prompts of its training examples, and written only if both agree (``merging.py``). Exit codes:
0 written, 1 refused or not found.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train.settings import Settings

PROMPTS = 20


class NotExported(TunewheelError):
    """There is nothing to export; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Export one run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tunewheel_train.export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("run_id")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    chosen = parser.parse_args(arguments)
    try:
        parity = export(chosen.run_id, chosen.directory, chosen.dtype, Settings())
    except (TunewheelError, ArtifactMissing, CorruptArtifact, TransientError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"directory": str(chosen.directory), "parity": asdict(parity)}))
    return 0


def export(run_id: str, directory: Path, dtype: Any, settings: Settings) -> Any:
    """Merge the adapter of ``run_id`` into its base at ``directory``; returns the parity found.

    Raises NotExported, NotEqual, BaseModelNotFound, InvalidAdapter, and what the store raises.
    """
    from tunewheel_basemodel.locate import locate_base_model

    from tunewheel_train.merging import export_merged
    from tunewheel_train.modeling import load_tokenizer

    store = ObjectStore(settings.store_url)
    manifest, rows = asyncio.run(_read(store, run_id))
    adapter = manifest.adapter
    if adapter.method is TrainMethod.FULL:
        raise NotExported(f"{run_id} trained the whole model: take {adapter.path} from the store as it is")
    base = locate_base_model(adapter.base.name, cache_dir=settings.cache_dir)
    if base.revision != adapter.base.revision:
        raise NotExported(
            f"{run_id} was trained on {adapter.base.name} at {adapter.base.revision}, here is "
            f"{base.revision}; bring that revision here"
        )
    folder = directory.parent / f".{directory.name}.adapter"
    files = asyncio.run(store.fetch_directory(adapter.files, adapter.path, folder))
    directory.parent.mkdir(parents=True, exist_ok=True)
    prompts = _prompts(rows, load_tokenizer(base), manifest.recipe.max_tokens)
    return export_merged(
        base, files, directory, prompts=prompts, quantization=adapter.quantization, precision=dtype
    )


async def _read(store: ObjectStore, run_id: str) -> tuple[RunManifest, list[dict[str, Any]]]:
    """The run's manifest, and the first training examples by id."""
    import polars as pl

    content = await store.read(f"runs/{run_id}/manifest.json")
    if content is None:
        raise NotExported(f"{run_id} has no manifest in the store; name a run that is complete")
    manifest = RunManifest.model_validate_json(content)
    dataset = DatasetManifest.model_validate_json(await store.get(manifest.dataset))
    frame = pl.read_parquet(io.BytesIO(await store.get(dataset.train)))
    return manifest, frame.sort("example_id").head(PROMPTS).to_dicts()


def _prompts(rows: list[dict[str, Any]], tokenizer: Any, max_tokens: int) -> list[list[int]]:
    from tunewheel_basemodel.chat import encode_chat

    return [encode_chat(tokenizer, row["messages"])[0][:max_tokens] for row in rows]


if __name__ == "__main__":
    sys.exit(main())
