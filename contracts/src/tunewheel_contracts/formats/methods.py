"""The training methods, each with its traits. Other code asks for a trait and names no method.

So a new method is a line of this table. A preference method also has a trainer in train, the module
``trainers/<method>_trainer.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The traits of a training method. A run's memory, speed, optimizer and rules follow from them."""

    adapter: bool = True
    """True: an adapter of the frozen base is trained. False: all weights are trained, in fp32."""
    quantization: Literal["nf4"] | None = None
    """Quantization of the base during training."""
    paged_moments: bool = False
    """On a GPU, the optimizer's moments have 8 bits and move to main memory when GPU memory is short
    (arXiv:2305.14314 §3)."""
    smaller: str | None = None
    """The method that replaces this one for ``on_out_of_memory: quantize``."""
    learning_rate: float | None = None
    """Default learning rate; null: the recipe's."""
    mild_learning_rate: float = 1e-4
    """Up to this learning rate, training has not been seen to cost a model much of its earlier knowledge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferring:
    """The traits of a preference method."""

    further_passes: int = 0
    """Forward passes in addition to training's; 0: there is no reference model."""
    unpaired: bool = False
    """Each answer counts by itself, so answers without a pair are used too."""
    fewest_pairs: int = 1
    """The fewest pairs of a step and of a dataset."""


class TrainMethod(StrEnum):
    traits: Training

    LORA = "lora", Training(smaller="qlora")
    QLORA = "qlora", Training(quantization="nf4", paged_moments=True)
    # An adapter learns best at about ten times the rate of all weights (Schulman et al., LoRA Without Regret,
    # 2025).
    FULL = "full", Training(adapter=False, learning_rate=1e-5, mild_learning_rate=2e-5)

    def __new__(cls, value: str, traits: Training) -> Self:
        member = str.__new__(cls, value)
        member._value_, member.traits = value, traits
        return member


MEASURED_SMALL = 0.25e9
"""Below this many parameters the default rate teaches an adapter nothing: SmolLM2-135M learns nothing at
1e-4, and a task in two epochs at 2e-3 (``docs/training.md``)."""
_RATES = ((MEASURED_SMALL, 2e-3), (0.45e9, 1e-3), (1e9, 5e-4))
"""The adapter's rate up to a number of parameters. Between the measured ends the rates are interpolated."""


def suitable_rate(method: TrainMethod, parameters: float) -> float:
    """Return the learning rate that suits a base. ``full`` takes a tenth of an adapter's."""
    rate = next((rate for most, rate in _RATES if parameters < most), 1e-4)
    return rate if method.traits.adapter else rate / 10


def parameters_named(base_model: str) -> float | None:
    """Return the parameters that a model's name states, as ``SmolLM2-135M-Instruct`` does; None: it states
    none."""
    name = base_model.rpartition("/")[2]
    found = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([MB])(?![\w.])", name, re.IGNORECASE)
    return None if found is None else float(found[1]) * (1e6 if found[2] in "mM" else 1e9)


class PreferenceMethod(StrEnum):
    traits: Preferring

    DPO = "dpo", Preferring(further_passes=1)
    ORPO = "orpo", Preferring()
    # Further passes: the reference's, and both models' over mismatched answers, which another pair provides.
    KTO = "kto", Preferring(further_passes=3, unpaired=True, fewest_pairs=2)

    def __new__(cls, value: str, traits: Preferring) -> Self:
        member = str.__new__(cls, value)
        member._value_, member.traits = value, traits
        return member
