"""The training recipe: the ``train`` section of a project spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Fraction, NonNegative, PositiveInt, Slug, Strict
from tunewheel_contracts.formats.methods import PreferenceMethod, TrainMethod

OPERATIONAL = frozenset({"priority", "keep_checkpoints", "on_out_of_memory", "max_hours", "max_dollars"})
"""Fields that affect how a run is carried out, but not its result. They are not part of the run's id."""


MOST_ANSWERS = 1_000_000
"""The most answers that a model writes for ``train.reward``: days of one GPU."""
CHECKPOINT_SHARE = 0.03
"""The largest share of a run's time in which checkpoints are written."""
CHECKPOINT_SECONDS = 600.0
"""A checkpoint is written after so many seconds, whatever it costs."""
CHAMPION = "champion"
"""The value of ``continue_from`` that names the model in production. Model ids contain a hyphen."""


Weight = Annotated[float | None, Field(gt=0, le=1000, allow_inf_nan=False, exclude_if=lambda w: w is None)]


class PreferenceSpec(Strict):
    """Preference training: it uses the dataset's preference pairs and, with ``kto``, its negatives."""

    method: PreferenceMethod = PreferenceMethod.DPO
    """``dpo``: prefers the better answer of each pair (arXiv:2305.18290). ``kto``: treats each answer by
    itself as desirable or not (arXiv:2402.01306). ``orpo``: learns the better answer at the same time,
    without a reference model (arXiv:2403.07691)."""
    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How strongly the model is kept close to the reference model; for ``orpo`` the weight of the preference
    (λ)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-6
    epochs: Annotated[float, Field(gt=0, le=100)] = 1.0
    alone: bool = False
    """true: train on the pairs only. false: train on the examples first."""
    desirable_weight: Weight = None
    """For ``kto``: weight of the loss of desirable answers. null: computed from the numbers of both kinds."""
    undesirable_weight: Weight = None
    """For ``kto``: weight of the loss of answers to avoid. null: computed from the numbers of both kinds."""

    @model_validator(mode="after")
    def _weighs_single_answers(self) -> Self:
        for name in ("desirable_weight", "undesirable_weight"):
            if getattr(self, name) is not None and not self.method.traits.unpaired:
                raise inconsistent(
                    name,
                    f"is the weight of a single answer, but {self.method} uses pairs; choose method kto, or "
                    "remove it",
                )
        return self


class RewardSpec(Strict):
    """Reinforcement learning after the examples, by group relative policy optimisation (GRPO,
    arXiv:2402.03300): the model answers training prompts several times, and answers that score above the mean
    of their prompt become likelier. The score is the mean of the project's criteria, of those by which one
    answer can be scored beside the expert's."""

    steps: Annotated[int, Field(gt=0, le=10_000)] = 100
    """Most steps."""
    prompts: Annotated[int, Field(gt=0, le=1024)] = 8
    """Training prompts that are answered in a step."""
    answers: Annotated[int, Field(ge=2, le=128)] = 8
    """Answers to each of these prompts."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    beta: Annotated[float, Field(gt=0, le=10)] = 0.04
    """How strongly the model is kept close to the model that this training began with (KL divergence)."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """How freely answers are drawn."""

    @model_validator(mode="after")
    def _writes_what_can_be_written(self) -> Self:
        if (written := self.steps * self.prompts * self.answers) > MOST_ANSWERS:
            raise inconsistent(
                "steps",
                f"{self.steps} x {self.prompts} prompts x {self.answers} answers are {written:,}, and at "
                f"most {MOST_ANSWERS:,} are written; lower one of them",
            )
        return self


Ceiling = Annotated[
    float | None, Field(gt=0, allow_inf_nan=False, exclude_if=lambda ceiling: ceiling is None)
]
_NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(Annotated[tuple[str, ...], Field(min_length=1)])


class TrainSpec(Strict):
    """The training recipe. The defaults suit models of usual size; tiny models need a larger learning
    rate."""

    method: TrainMethod = TrainMethod.LORA
    """``lora``: an adapter. ``qlora``: an adapter on a 4-bit base. ``full``: all weights of the base."""
    rank: Annotated[int, Field(gt=0, le=512)] = 16
    alpha: Annotated[int, Field(gt=0, le=1024)] = 32
    """The adapter's output is scaled by alpha/rank."""
    dropout: Fraction = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layers that get an adapter, by the ends of their names."""
    rslora: bool = False
    """Scale the adapter by alpha/√rank instead of alpha/rank, for large ranks (arXiv:2312.03732)."""
    dora: bool = False
    """Learn the size of each weight column separately from its direction (arXiv:2402.09353). Slower."""
    quantization: Literal["nf4"] | None = None
    """Quantization of the base: nf4 for ``qlora``, none for the other methods."""
    continue_from: Slug | None = None
    """A model id of this project. Training starts from its adapter and not from a new one. ``champion``: the
    model in production, on the rows that are new since then and a sample of the others. Base, method, rank,
    alpha, form, layers and task must be the same, and the version must still have all rows that the model
    learned from. Otherwise training starts from nothing, and the run says why."""
    rehearsal: Annotated[Fraction | None, Field(exclude_if=lambda share: share is None)] = None
    """For ``continue_from: champion``: share of the rows that the champion learned from that are trained on
    again. null: 0.25."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """If it is left out, ``full`` takes 0.00001."""
    epochs: Annotated[float, Field(gt=0, le=100)] = 2.0
    batch_size: PositiveInt = 8
    """Examples per optimizer step. Gradients of several micro-batches are accumulated if needed."""
    micro_batch_size: PositiveInt = 8
    """Examples that go through the model at once; must divide batch_size."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: NonNegative = 0.0
    max_grad_norm: NonNegative = 1.0
    """Gradients with a larger norm are scaled down to this norm; 0: never."""
    scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate changes after the warm-up."""
    max_tokens: PositiveInt = 1024
    """Longest example that is trained on, in the base model's tokens. Longer examples are left out."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.05
    """Largest share of the training groups that is used as validation rows, for early stopping. The holdout
    is never used. In large datasets the share is reduced so that validation takes at most a twentieth of the
    training."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Stop after this many validations without a better loss, and keep the best model; 0: train to the
    end."""
    preference: PreferenceSpec | None = None
    reward: Annotated[RewardSpec | None, Field(exclude_if=lambda reward: reward is None)] = None
    """null: no reinforcement learning."""
    checkpoint_steps: PositiveInt = 20
    """Fewest steps between two checkpoints. There are fewer checkpoints if they would take more than 3 % of
    the time, but one every ten minutes, after a better validation and at the end. Validations happen at a
    multiple of these steps, which depends on their cost."""
    keep_checkpoints: PositiveInt = 2
    """Number of newest checkpoints that are kept. The best by validation is always kept."""
    on_out_of_memory: Literal["fail", "shrink", "quantize"] = "shrink"
    """``shrink``: retry with smaller micro-batches, then with recomputed activations. ``quantize``: after
    these, retry as qlora. ``fail``: do not retry."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """Of a project's runs that wait for the same machine, the one with the highest priority goes first."""
    max_hours: Ceiling = None
    """A run whose estimate is higher is refused before it starts, and a run that passes it is stopped.
    `tunewheel run resume` trains such a run without a ceiling. null: no ceiling."""
    max_dollars: Ceiling = None
    """The same in dollars, where the device has a price."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 17

    @model_validator(mode="before")
    @classmethod
    def _takes_the_rate_of_its_method(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = dict(cast("dict[str, Any]", value))
        method = next((method for method in TrainMethod if method == fields.get("method")), None)
        if method is not None and method.traits.learning_rate is not None:
            fields.setdefault("learning_rate", method.traits.learning_rate)
        return fields

    @field_validator("target_modules", mode="before")
    @classmethod
    def _are_names(cls, value: Any) -> Any:
        try:
            return value if value == "all-linear" else _NAMES.validate_python(value)
        except ValidationError:
            reason = "must be 'all-linear', or a list of layers' names such as [q_proj, v_proj]"
            raise PydanticCustomError("unknown_value", "{reason}", {"reason": reason}) from None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise inconsistent(
                "micro_batch_size",
                f"{self.micro_batch_size} does not divide batch_size {self.batch_size}; choose one that does",
            )
        traits = self.method.traits
        if self.quantization and self.quantization != traits.quantization:
            raise inconsistent(
                "quantization",
                f"is {self.quantization}, but method {self.method} trains on an unquantised base; "
                + ("" if traits.adapter else "4-bit weights cannot be updated: ")
                + "choose method qlora, or remove quantization",
            )
        self._demand_preferable()
        if self.rehearsal is not None and self.continue_from != CHAMPION:
            raise inconsistent(
                "rehearsal", f"is about rows of the champion; set continue_from: {CHAMPION}, or remove it"
            )
        if not traits.adapter:
            for name in ("rslora", "dora", "continue_from", "reward"):
                if getattr(self, name):
                    raise inconsistent(
                        name,
                        f"is about an adapter, but method {self.method} trains none; choose lora, or remove "
                        "it",
                    )
        return self

    def _demand_preferable(self) -> None:
        preference = self.preference
        if preference is None:
            return
        if self.reward is not None:
            raise inconsistent("reward", "is given beside preference; give one of the two")
        if not self.method.traits.adapter and preference.method.traits.further_passes:
            raise inconsistent(
                "preference",
                "needs a reference model, which is the base without the adapter; choose method lora or "
                "qlora, or preference method orpo, which has no reference model",
            )
        if self.batch_size < (fewest := preference.method.traits.fewest_pairs):
            raise inconsistent(
                "batch_size",
                f"is {self.batch_size}, but {preference.method} compares an answer with another pair of the "
                f"same step; raise it to {fewest} or more",
            )
