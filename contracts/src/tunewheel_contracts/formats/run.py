"""A training run: everything needed to repeat it, and what came out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, FiniteFloat, Frozen, RelativePath, Sha256, Slug
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.recipe import TrainMethod, TrainSpec


class BaseModelRef(Frozen):
    name: str
    revision: str
    """A hub commit, or ``sha256:<hex>`` of the content for local and package-carried models."""


class BaseModelFacts(Frozen):
    """What a base model's own files say about it; None where they do not."""

    license: Annotated[str, Field(min_length=1)] | None = None
    """As its model card or its GGUF file names it: ``apache-2.0``."""
    chat_template_sha256: Sha256 | None = None
    context_length: Annotated[int, Field(gt=0)] | None = None
    """Longest sequence it was made for, in tokens."""
    parameters: Annotated[int, Field(gt=0)] | None = None


class AdapterRef(Frozen):
    """A PEFT adapter (or a whole model, for ``full``) in the object store: a directory of safetensors."""

    model_id: Slug
    path: RelativePath
    files: tuple[ArtifactRef, ...]
    base: BaseModelRef
    base_facts: BaseModelFacts | None = None
    method: TrainMethod
    quantization: Literal["nf4"] | None = None
    """The form of the base the adapter was trained on: serve it on the same (an NF4 base and its bf16
    original agree on about three argmax tokens of four)."""


class Usage(Frozen):
    """What a run took, beside its plan."""

    tokens_per_second: FiniteFloat
    """Of steps alone: loading, validation and saving excluded."""
    peak_bytes: int | None = None
    """Most memory held at once: resident on a CPU; on a GPU PyTorch's and the context."""
    comparable: bool = True
    """Whether the run corrects later plans: runs of one process that trained on examples alone do."""


class Adjustment(Frozen):
    """One rung of the ladder that a run which ran out of memory goes down."""

    field: str
    """Of the recipe, or ``gradient_checkpointing``."""
    value: str
    after_step: int = 0


class RunManifest(Frozen):
    """``runs/<run_id>/manifest.json``."""

    run_id: Slug
    project: Slug
    dataset_id: Slug
    dataset: ArtifactRef
    criteria_sha256: Sha256
    recipe: TrainSpec
    adapter: AdapterRef
    dtype: str
    seed: int
    versions: dict[str, str]
    steps: int
    tokens: int
    """Tokens seen in training, padding excluded."""
    wall_seconds: FiniteFloat
    metrics: dict[str, FiniteFloat]
    resumed_from_steps: tuple[int, ...] = ()
    plan: TrainPlan | None = None
    """What was estimated before the run; ``usage`` is what it took."""
    usage: Usage | None = None
    adjustments: tuple[Adjustment, ...] = ()
    """How the run departed from its recipe to fit in memory, in order."""
    stopped_early_at: int | None = None
    """The step after which validation got no better; the model is that of ``best_step``."""
    best_step: int | None = None
