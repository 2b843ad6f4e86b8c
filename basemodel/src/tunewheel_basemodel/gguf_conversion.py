"""Converts a GGUF file, once per content, into a directory that transformers can load.

The result is in ``<cache>/models/<sha256 of the GGUF file>``. It is written into a temporary directory,
checked, and then renamed, so that a reader never sees a part of it. Its ``conversion.json`` holds the hash of
every file; the hashes are checked each time the directory is used.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewheel_contracts.identity import sha256_file

from tunewheel_basemodel.errors import BaseModelNotFound

_MANIFEST = "conversion.json"
_PROBE = "Bike 3071 won't start!\n\n  Überprüfen: 12,5 km \u2013 \u2713 <|im_end|>"


def converted(gguf: Path, *, cache_dir: Path) -> tuple[Path, str]:
    """Return the directory with ``gguf`` as safetensors, and the hex SHA-256 of ``gguf``. Convert it if
    needed.

    Raises BaseModelNotFound if the converted model differs from the original in tokens or weights.
    """
    digest = sha256_file(gguf)
    models = cache_dir / "models"
    models.mkdir(parents=True, exist_ok=True)
    target = models / digest
    if is_intact(target):
        return target, digest
    # Without the lock all services of a new machine would convert at the same time, with 2 GB of memory each.
    with _locked(models / f".{digest}.lock"):
        if not is_intact(target):
            _convert_into(gguf, target)
    return target, digest


def is_intact(directory: Path) -> bool:
    """Return whether every file of the conversion exists and is unchanged."""
    try:
        hashes: dict[str, str] = json.loads((directory / _MANIFEST).read_text())["files"]
        return bool(hashes) and all(sha256_file(directory / name) == known for name, known in hashes.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _convert_into(gguf: Path, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write_safetensors(gguf, scratch)
        hashes = {file.name: sha256_file(file) for file in sorted(scratch.iterdir())}
        (scratch / _MANIFEST).write_text(json.dumps({"source": target.name, "files": hashes}, indent=1))
        _let_others_read(scratch)
        if target.exists():  # It is damaged. It is moved, since processes may still map its files.
            aside = tempfile.mkdtemp(prefix=f".{target.name}.bad.", dir=target.parent)
            target.rename(Path(aside) / "damaged")
        scratch.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for leftover in target.parent.glob(f".{target.name}.bad.*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _let_others_read(directory: Path) -> None:
    # mkdtemp and safetensors give rights to the owner only, but services of other users share the cache.
    directory.chmod(0o755)
    for file in directory.iterdir():
        file.chmod(0o644)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_safetensors(gguf: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # fp32 represents every dequantised value exactly; bf16 would round it.
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    _forget_quantization(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _check_same(model, tokenizer, directory, gguf)


def _forget_quantization(model: Any) -> None:
    # With these attributes save_pretrained would pass the dequantised weights to the GGUF quantizer. A saved
    # quantization_config would make every later load look for a GGUF file.
    for owner, name in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "is_quantized"),
        (model, "quantization_method"),
    ):
        if hasattr(owner, name):
            delattr(owner, name)


def _check_same(model: Any, tokenizer: Any, directory: Path, gguf: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    again: Any = AutoTokenizer.from_pretrained(str(directory))
    tokens = tokenizer(_PROBE, return_tensors="pt").input_ids
    same_tokens = again(_PROBE).input_ids == tokens[0].tolist()
    same_template = again.chat_template == tokenizer.chat_template
    reloaded = AutoModelForCausalLM.from_pretrained(str(directory), dtype=torch.float32)
    with torch.inference_mode():
        same_logits = torch.equal(model(tokens).logits, reloaded(tokens).logits)
    if not (same_tokens and same_template and same_logits):
        raise BaseModelNotFound(
            f"{gguf.name} does not convert to the same model (equal tokens: {same_tokens}, chat template: "
            f"{same_template}, logits: {same_logits}); install transformers as requirements.lock pins it, "
            "or name another model"
        )
