"""``tunewheel run export``: runs the train package's export in a separate process, so that only that loads
torch."""

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
from typing import Any, NoReturn

from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_local.connection import InvalidOption
from tunewheel_local.places import cache_dir

from tunewheel_cli.exits import Exit

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


class NotExported(TunewheelError):
    """Nothing was written. The message is the export's."""


def export_model(
    run_id: str, directory: Path, *, form: str, dtype: str | None, store_url: str, on_step: OnStep
) -> dict[str, Any]:
    """Export a run's model to ``directory``. Return the export's report, which includes the difference from
    the trained model.

    Raises NotExported, InvalidOption, and TransientError if the store does not answer.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise NotExported(
            "models are exported by the train service's package, which is not installed here; run this where "
            "it is, or install tunewheel-train[worker]"
        )
    options = ["--format", form, *(["--dtype", dtype] if dtype else [])]
    command = [sys.executable, "-m", MODULE, *options, "--", run_id, str(directory)]
    return run_export(command, store_url=store_url, on_step=on_step)


def run_export(command: Sequence[str], *, store_url: str, on_step: OnStep) -> dict[str, Any]:
    """Run ``command``, which writes JSON Lines, and return its last line. Raises as ``export_model``."""
    environment = {
        **os.environ, "TUNEWHEEL_STORE_URL": store_url, "TUNEWHEEL_CACHE_DIR": str(cache_dir()),
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
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
