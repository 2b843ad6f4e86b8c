"""Writes a saved model as one GGUF file, by llama.cpp's own programs.

``convert_hf_to_gguf.py`` knows the tensors and tokenizers of each architecture, and ``llama-quantize`` knows
the K-quants. PyPI's ``gguf`` has neither. The user names a folder of llama.cpp's sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunewheel_train.errors import NotExported

if TYPE_CHECKING:
    from gguf import GGUFReader

Encoding = Literal["float32", "float16", "q8_0", "q4_k_m"]
SCRIPT, QUANTIZER = "convert_hf_to_gguf.py", "llama-quantize"
_OUTTYPES: Mapping[Encoding, str] = {"float32": "f32", "float16": "f16", "q8_0": "q8_0"}
"""The types that the script writes itself. All others are quantised from fp32."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of llama.cpp that write a file. ``quantizer``: only if the script alone does not do."""

    script: Path
    quantizer: str | None


def find_programs(folder: Path | None, encoding: Encoding) -> Programs:
    """Return what writes ``encoding``. Raises NotExported if a program is missing; the message says how to
    get it."""
    if folder is None:
        raise NotExported(
            "GGUF is written by llama.cpp's own programs; make llama-cpp builds them into var/llama.cpp, or "
            "clone github.com/ggml-org/llama.cpp; name its folder by --llama-cpp"
        )
    script = folder.absolute() / SCRIPT
    if not script.is_file():
        raise NotExported(f"{folder} has no {SCRIPT}; name a folder of llama.cpp's sources by --llama-cpp")
    if encoding in _OUTTYPES:
        return Programs(script, None)
    built = script.parent / "build" / "bin"
    quantizer = shutil.which(QUANTIZER, path=os.pathsep.join([str(built), os.environ.get("PATH", "")]))
    if quantizer is None:
        raise NotExported(
            f"{QUANTIZER}, which writes {encoding}, is neither in {built} nor on PATH; build it in {folder} "
            f"by cmake -B build && cmake --build build --target {QUANTIZER}"
        )
    return Programs(script, quantizer)


def write_gguf(programs: Programs, source: Path, target: Path, *, encoding: Encoding, name: str) -> None:
    """Write the model saved in ``source`` (fp32 safetensors and tokenizer) to ``target``. Raises NotExported
    with the last words of the program that refused it."""
    outtype = _OUTTYPES.get(encoding, "f32")
    whole = target if programs.quantizer is None else target.with_name(f"whole-{target.name}")
    convert = [sys.executable, str(programs.script), str(source), "--outfile", str(whole)]
    _run(SCRIPT, [*convert, "--outtype", outtype, "--model-name", name])
    if programs.quantizer is not None:
        _run(QUANTIZER, [programs.quantizer, str(whole), str(target), encoding.upper()])
        whole.unlink()


def tell_engines(file: GGUFReader, begin: int | None) -> None:
    """Write into ``file`` which tokens engines put around a prompt: ``begin`` before it (None: nothing), and
    nothing behind it. Raises NotExported if the script left no place for that.

    The script goes by the tokenizer. Engines go by defaults of their own where a file does not say it.
    """
    around = {"add_bos_token": begin is not None, "add_eos_token": False}
    for name, value in {**around, **({} if begin is None else {"bos_token_id": begin})}.items():
        field = file.get_field(f"tokenizer.ggml.{name}")
        if field is None:
            raise NotExported(
                f"{SCRIPT} of llama.cpp wrote no {name}, so engines would put tokens of their own around "
                "prompts; use a newer llama.cpp, or export safetensors"
            )
        field.parts[field.data[0]][0] = value
    file.data.flush()


def _run(program: str, command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode:
        said = [line for line in f"{ended.stdout}\n{ended.stderr}".splitlines() if line.strip()]
        raise NotExported(
            f"{program} of llama.cpp refused this model: {said[-1].strip() if said else ended.returncode}; "
            "use a newer llama.cpp, or export safetensors"
        )
