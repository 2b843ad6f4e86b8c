"""A training run: everything that is needed to repeat it, and its results."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeGuard

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, FiniteFloat, Frozen, RelativePath, Sha256, Slug, Text
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.identity import content_sha256

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
"""Suffixes of weights that run code when they are loaded."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
WHOLE_MODEL_FILES = ("config.json", "*.safetensors")
"""The files that a model must have, as patterns: a whole model may have its weights in several files."""
BASE_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "README.md")
"""The files of a base model that are taken from the hub, as patterns."""


class BaseModelRef(Frozen):
    name: str
    revision: str
    """A commit of the hub, or ``sha256:<hex>`` of the content for models from a directory or a package."""


def is_commit(revision: str | None) -> TypeGuard[str]:
    """Return whether ``revision`` is a commit of the hub, and not a hash of files."""
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def mirror_of(base_model: str) -> str:
    """Return the folder of a model of the hub in the object store, and in the cache of a machine. Each commit
    has a folder of its own in it."""
    return f"bases/{content_sha256(base_model.encode())}"


class BaseModelFacts(Frozen):
    """Facts that a base model's own files state; null: not stated."""

    license: Annotated[str, Field(min_length=1)] | None = None
    """The license as named in the model card or the GGUF file, such as ``apache-2.0``."""
    chat_template_sha256: Sha256 | None = None
    context_length: Annotated[int, Field(gt=0)] | None = None
    """Longest sequence that the model supports, in tokens."""
    parameters: Annotated[int, Field(gt=0)] | None = None


class AdapterRef(Frozen):
    """A PEFT adapter in the object store, or a fully fine-tuned model for the method ``full``: a directory of
    safetensors."""

    model_id: Slug
    path: RelativePath
    files: tuple[ArtifactRef, ...]
    base: BaseModelRef
    base_facts: BaseModelFacts | None = None
    method: TrainMethod
    quantization: Literal["nf4"] | None = None
    """Quantization of the base that the adapter was trained on. Serve the adapter on the same: an NF4 base
    and its bf16 original agree on only about three of four argmax tokens."""

    @property
    def is_whole(self) -> bool:
        """Whether this is a fully fine-tuned model, which needs no base."""
        return not self.method.traits.adapter

    @property
    def unloadable(self) -> str | None:
        """Why the files must not be loaded or cannot be, by their names alone; None: they can."""
        names = [PurePosixPath(ref.path).name for ref in self.files]
        if pickled := sorted(name for name in names if PurePosixPath(name).suffix in PICKLES):
            return f"holds pickled files ({', '.join(pickled)}), which can run code; save it as safetensors"
        needed = WHOLE_MODEL_FILES if self.is_whole else ADAPTER_FILES
        if missing := [one for one in needed if not any(fnmatch(name, one) for name in names)]:
            return f"lacks {', '.join(missing)} in {self.path}; save it with save_pretrained, as safetensors"
        return None


class Usage(Frozen):
    """The measured usage of a run."""

    tokens_per_second: FiniteFloat
    """Speed of training steps, without loading, validation and saving."""
    peak_bytes: int | None = None
    """Peak memory: on a CPU the resident memory, on a GPU PyTorch's memory and the CUDA context."""
    comparable: bool = True
    """Whether the run is used to correct later plans: runs without preference training are, of one process or
    on one processor."""


class Adjustment(Frozen):
    """One change of the recipe after a run ran out of memory."""

    field: str
    """The changed field of the recipe, ``gradient_checkpointing``, or ``processes``."""
    value: str
    after_step: int = 0


class Start(Frozen):
    """How a run with ``continue_from: champion`` began. It is decided once for each dataset version."""

    model_id: Slug | None = None
    """The champion whose adapter was trained further; null: training started from nothing."""
    reason: Text | None = None
    """Why training started from nothing."""
    learnt: ArtifactRef | None = None
    """The training rows of the champion's dataset version."""
    spared_steps: Annotated[int, Field(ge=0)] = 0
    """How many optimizer steps more a run from nothing takes on this version."""


class RunManifest(Frozen):
    """``runs/<run_id>/manifest.json``."""

    run_id: Slug
    project: Slug
    dataset_id: Slug
    dataset: ArtifactRef
    criteria_sha256: Sha256
    recipe: TrainSpec
    start: Annotated[Start | None, Field(exclude_if=lambda start: start is None)] = None
    """Null: the recipe does not continue from the champion."""
    adapter: AdapterRef
    dtype: str
    seed: int
    versions: dict[str, str]
    steps: int
    tokens: int
    """Number of training tokens, without padding."""
    wall_seconds: FiniteFloat
    metrics: dict[str, FiniteFloat]
    resumed_from_steps: tuple[int, ...] = ()
    plan: TrainPlan | None = None
    """The estimate before the run; ``usage`` is the measurement."""
    usage: Usage | None = None
    adjustments: tuple[Adjustment, ...] = ()
    """Changes of the recipe to fit into memory, in order."""
    stopped_early_at: int | None = None
    """The step at which the run was stopped, because validation did not improve; the model is that of
    ``best_step``."""
    best_step: int | None = None
