"""``tunewheel run export``: fetches a run over the API, and runs the train package's export in a separate
process, so that only that loads torch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tunewheel_contracts.cache import cache_dir
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.datasets.exporting import check_folder
from tunewheel_cli.exits import Exit

if TYPE_CHECKING:
    from tunewheel_client import Client
    from tunewheel_contracts.formats.run import RunManifest

PACKAGE = "tunewheel_train"
MODULE = f"{PACKAGE}.exporting.export"
_PREFIXES = ("export: ", f"{MODULE}: error: ")

OnStep = Callable[[str, int, int], None]
"""Is called at the start of a step, with its name, the number of completed steps, and the number of all
steps."""


class ModelFormat(StrEnum):
    SAFETENSORS = "safetensors"
    GGUF = "gguf"


class ModelDtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"


DTYPES = {
    ModelFormat.SAFETENSORS: (ModelDtype.FLOAT32, ModelDtype.BFLOAT16),
    ModelFormat.GGUF: (ModelDtype.FLOAT16, ModelDtype.FLOAT32, ModelDtype.Q8_0, ModelDtype.Q4_K_M),
}
ROWS = 1_000
"""How many training examples are fetched. The first 20 of them that the run trained on are compared."""


class NotExported(TunewheelError):
    """Nothing was written. The message is the export's."""


def export_model(
    client: Client,
    project: str,
    run_id: str,
    directory: Path,
    *,
    form: ModelFormat,
    dtype: ModelDtype | None,
    llama_cpp: Path | None = None,
    on_step: OnStep,
) -> dict[str, Any]:
    """Export a run's model to ``directory``, GGUF by the programs of the folder ``llama_cpp``. Return the
    export's report, which includes the difference from the trained model.

    Raises NotExported, InvalidOption, FolderTaken, and ClientError if the wheel does not give the files.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise NotExported(
            "models are exported by the train service's package, which is not installed here; run this where "
            "it is, or install tunewheel-train[worker]"
        )
    if dtype is not None and dtype not in DTYPES[form]:
        raise InvalidOption(f"--dtype {dtype}: {form} takes {' or '.join(DTYPES[form])}")
    check_folder(directory)
    manifest = client.runs.manifest(project, run_id)
    parent = directory.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=parent) as scratch:
        fetch(client, manifest, Path(scratch), on_step)
        options = ["--format", form, *(["--dtype", dtype] if dtype else [])]
        options += ["--llama-cpp", str(llama_cpp)] if llama_cpp else []
        return run_export(
            [sys.executable, "-m", MODULE, *options, "--", scratch, str(directory)], on_step=on_step
        )


def fetch(client: Client, manifest: RunManifest, folder: Path, on_step: OnStep) -> None:
    """Write to ``folder`` what the export reads.

    Raises:
        NotExported: a file is damaged, or lies outside the model's folder.
        ClientError: the wheel does not give a file, for example because it was erased.
    """
    (folder / "manifest.json").write_text(manifest.model_dump_json(), "utf-8")
    dataset = client.datasets.show(manifest.project, manifest.dataset_id).manifest
    (folder / "dataset.json").write_text(dataset.model_dump_json(), "utf-8")
    page = client.datasets.rows(manifest.project, manifest.dataset_id, limit=ROWS)
    rows = sorted((row for row in page.items if not row.erased), key=lambda row: row.row_id)
    lines = (row.model_dump_json(include={"messages"}) + "\n" for row in rows)
    (folder / "examples.jsonl").write_text("".join(lines), "utf-8")
    for number, ref in enumerate(manifest.adapter.files):
        try:
            name = ref.name_below(manifest.adapter.path)
        except ValueError as error:
            raise NotExported(f"the manifest of {manifest.run_id} is damaged: {error}") from error
        on_step(f"fetch {name}", number, len(manifest.adapter.files))
        (target := folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        if client.runs.download(manifest.project, manifest.run_id, name, target) != ref.sha256:
            raise NotExported(f"{name} of {manifest.run_id} is damaged in the store of the wheel")


def run_export(command: Sequence[str], *, on_step: OnStep) -> dict[str, Any]:
    """Run ``command``, which writes JSON Lines, and return its last line. Raises as ``export_model``, and
    TransientError if the hub of the base model does not answer."""
    environment = {**os.environ, "TUNEWHEEL_CACHE_DIR": str(cache_dir()), "PYTHONUNBUFFERED": "1"}
    message: dict[str, Any] = {}
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    message = json.loads(line)
                    if "step" in message:
                        on_step(message["step"], message["done"], message["of"])
            except BaseException:
                process.terminate()
                raise
        if process.returncode == 0 and "directory" in message:
            return message
        errors.seek(0)
        _refuse(process.returncode, errors.read().decode(errors="replace"))


def _refuse(code: int, errors: str) -> NoReturn:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith(_PREFIXES)), lines[-1] if lines else "")
    for prefix in _PREFIXES:
        said = said.removeprefix(prefix)
    if code == Exit.USAGE:
        raise InvalidOption(said)
    if code == Exit.UNREACHABLE:
        raise TransientError(said)
    if code == Exit.FAILED:
        raise NotExported(said)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise NotExported(f"the export ended with {how}, nothing was written ({said or 'it said nothing'})")
