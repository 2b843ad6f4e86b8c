"""The training recipe: the ``train`` section of a project spec."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Fraction, NonNegative, PositiveInt, Slug, Strict

OPERATIONAL = frozenset({"priority", "keep_checkpoints", "on_out_of_memory"})
"""Fields that decide how a run is carried out and not what comes of it: they are no part of its name."""


class TrainMethod(StrEnum):
    LORA = "lora"
    QLORA = "qlora"
    FULL = "full"


class PreferenceMethod(StrEnum):
    DPO = "dpo"
    ORPO = "orpo"
    KTO = "kto"


Weight = Annotated[float | None, Field(gt=0, le=1000, allow_inf_nan=False, exclude_if=lambda w: w is None)]


class PreferenceSpec(Strict):
    """Learn from answers to avoid: the dataset's preference pairs and, by ``kto``, its negatives."""

    method: PreferenceMethod = PreferenceMethod.DPO
    """``dpo``: the better answer of each pair (arXiv:2305.18290). ``kto``: each answer by itself as desirable
    or not (arXiv:2402.01306). ``orpo``: without a model to be held to, while the better answer is learnt
    (arXiv:2403.07691)."""
    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How strongly the model is held to what it was before; of ``orpo`` the weight of the preference (λ)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-6
    epochs: Annotated[float, Field(gt=0, le=100)] = 1.0
    alone: bool = False
    """True: the pairs only; else after training on the examples."""
    desirable_weight: Weight = None
    """Of ``kto``: what the loss of a desirable answer counts. null: as the numbers of both kinds ask for."""
    undesirable_weight: Weight = None
    """Of ``kto``: the same of an answer to avoid."""

    @model_validator(mode="after")
    def _weighs_single_answers(self) -> Self:
        for name in ("desirable_weight", "undesirable_weight"):
            if getattr(self, name) is not None and self.method is not PreferenceMethod.KTO:
                raise inconsistent(
                    name,
                    f"weighs answers one by one, but {self.method} looks at pairs; choose method kto, or "
                    "remove it",
                )
        return self


_NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(Annotated[tuple[str, ...], Field(min_length=1)])


class TrainSpec(Strict):
    """The recipe. Defaults suit real models; tiny ones want a larger learning rate."""

    method: TrainMethod = TrainMethod.LORA
    """``lora``; ``qlora``: on a 4-bit base; ``full``: every weight of the base."""
    rank: Annotated[int, Field(gt=0, le=512)] = 16
    alpha: Annotated[int, Field(gt=0, le=1024)] = 32
    """The adapter's output is scaled by alpha/rank."""
    dropout: Fraction = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layers that get an adapter, by the ends of their names."""
    rslora: bool = False
    """Scale the adapter by alpha/√rank instead of alpha/rank, for large ranks (arXiv:2312.03732)."""
    dora: bool = False
    """Learn the size of each weight column apart from its direction (arXiv:2402.09353); slower."""
    quantization: Literal["nf4"] | None = None
    """Of the base; ``qlora`` means nf4, the other methods have none."""
    continue_from: Slug | None = None
    """A model id of this project: start from its adapter instead of from nothing."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    epochs: Annotated[float, Field(gt=0, le=100)] = 2.0
    batch_size: PositiveInt = 8
    """Examples per optimizer step, reached by accumulation where memory is short."""
    micro_batch_size: PositiveInt = 8
    """Examples that go through the model at once; divides batch_size."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: NonNegative = 0.0
    max_grad_norm: NonNegative = 1.0
    """Longer gradients are scaled down to it; 0: none is."""
    scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate goes on after it."""
    max_tokens: PositiveInt = 1024
    """Longest example that is trained on, in the base model's tokens; longer ones are left out."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.05
    """Share of the training groups (never of the holdout) to stop early by, at most: fewer where they would
    take more than a twentieth of training; small datasets keep theirs."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Stop after this many validations without a better loss, and keep the best; 0: train to the end."""
    preference: PreferenceSpec | None = None
    checkpoint_steps: PositiveInt = 20
    """Steps between checkpoints; those between validations are a multiple, chosen by their cost."""
    keep_checkpoints: PositiveInt = 2
    """The newest ones; the best by validation is kept too."""
    on_out_of_memory: Literal["fail", "shrink", "quantize"] = "shrink"
    """Retry with smaller micro-batches, then with recomputed activations; ``quantize``: at last as qlora."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """Of runs that wait for one machine, the highest goes first."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 17

    @field_validator("target_modules", mode="before")
    @classmethod
    def _are_names(cls, value: Any) -> Any:
        try:
            return value if value == "all-linear" else _NAMES.validate_python(value)
        except ValidationError:
            reason = "must be 'all-linear', or a list of layers' names such as [q_proj, v_proj]"
            raise ValueError(reason) from None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise inconsistent(
                "micro_batch_size",
                f"{self.micro_batch_size} does not divide batch_size {self.batch_size}; choose one that does",
            )
        if self.quantization and self.method is not TrainMethod.QLORA:
            raise inconsistent(
                "quantization",
                f"is {self.quantization}, but method {self.method} trains on an unquantised base; "
                + ("4-bit weights cannot be updated: " if self.method is TrainMethod.FULL else "")
                + "choose method qlora, or remove quantization",
            )
        self._demand_preferable()
        if self.method is TrainMethod.FULL:
            for name in ("rslora", "dora", "continue_from"):
                if getattr(self, name):
                    raise inconsistent(
                        name, "speaks of an adapter, but method full trains none; choose lora, or remove it"
                    )
        return self

    def _demand_preferable(self) -> None:
        preference = self.preference
        if preference is None:
            return
        if self.method is TrainMethod.FULL and preference.method is not PreferenceMethod.ORPO:
            raise inconsistent(
                "preference",
                "needs an adapter beside the model it is held to; choose method lora or qlora, or preference "
                "method orpo, which holds it to none",
            )
        if preference.method is PreferenceMethod.KTO and self.batch_size < 2:
            raise inconsistent(
                "batch_size",
                "is 1, but kto measures how far the model has moved on another pair of the same step; "
                "raise it to 2 or more",
            )
