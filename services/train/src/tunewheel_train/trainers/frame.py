"""The objects that all stages of a run share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewheel_basemodel.precision import Precision

from tunewheel_train.data.datasets import Encoded
from tunewheel_train.job import Job
from tunewheel_train.model import modeling
from tunewheel_train.model.attention import NotEquivalent
from tunewheel_train.model.kernels import Kernels
from tunewheel_train.progress import Message, Warned


@dataclass(frozen=True)
class Frame:
    job: Job
    model: Any
    tokenizer: Any
    precision: Precision
    report: Callable[[Message], None]
    should_stop: Callable[[], bool]
    kernels: Kernels

    def rows_for(self, examples: Sequence[Encoded]) -> dict[str, bool]:
        """Switch the model to packed rows of ``examples``, if that gives the same results. Return the
        arguments of ``SftTrainer`` that say how it lays out rows."""
        return {"packed": self._takes_packed(examples), "share_prefix": self.job.recipe.dropout == 0.0}

    def _takes_packed(self, examples: Sequence[Encoded]) -> bool:
        if not self.job.packed:
            return False
        try:
            modeling.use_packed_rows(self.model, examples)
        except NotEquivalent as error:
            self.report(Warned(reason=f"is trained in padded batches: {error}"))
            return False
        return True
