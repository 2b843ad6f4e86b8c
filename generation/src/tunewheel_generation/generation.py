"""One request to generate, and what comes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunewheel_basemodel.sampling import Sampling

if TYPE_CHECKING:
    from tunewheel_generation.constraint import Grammar
    from tunewheel_generation.lora import LoraWeights

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class BaseForm:
    """The form of the base that an adapter was trained on; ``dtype`` counts where it was quantised from."""

    quantization: Literal["nf4"] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, eq=False)
class WholeModel:
    """Weights that no other model shares: a fully trained model, or the base changed by an adapter that is
    more than a LoRA. Each load is one of its own, even of the same files."""

    path: Path
    adapter_on: BaseForm | None = None
    """The form of the base that the adapter in ``path`` changes; None: a fully trained model lies there."""


Form = BaseForm | WholeModel
"""The weights that requests run on; those of one form share a batch."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """What a request can name beside the base. Requests hold on to it, so that unloading lets those under way
    finish."""

    name: str
    path: Path
    form: Form
    weights: LoraWeights | None
    """What it adds to ``form``; None for a whole model."""


@dataclass(frozen=True)
class Token:
    """A generated token and the text it adds, which is empty while a character is incomplete."""

    id: int
    text: str
    special: bool
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place and their log probabilities, as many as were asked for."""


@dataclass(frozen=True)
class Progress:
    """One step of one request: text that may be shown, the token, and the reason when it was the last."""

    text: str
    token: Token
    finish_reason: FinishReason | None = None
    stopped_by: Literal["eos", "string", None] = None


@dataclass(eq=False)
class Generation:
    """A request to write up to ``max_tokens`` tokens after ``prompt``; 0: none, and no event comes.

    Made and read in the event loop; the scheduler's thread writes to it by ``deliver`` and ``fail``. The
    ``cancelled`` flag is the only thing that both threads touch.
    """

    prompt: list[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    adapter: Adapter | None = None
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    ignore_eos: bool = False
    want_logprobs: bool = False
    """Of the model's own distribution: before temperature, penalties, biases and grammar."""
    top_logprobs: int = 0
    grammar: Grammar | None = None
    cancelled: bool = False
    answers: Sequence[Sequence[int]] = ()
    """Token ids of answers whose likelihoods are asked."""
    likelihoods: list[float] = field(default_factory=list)
    """Log-likelihood in nats of each of ``answers``, once the prompt was read."""
    _events: asyncio.Queue[Progress | Exception] = field(default_factory=asyncio.Queue)

    @property
    def form(self) -> Form:
        """The weights that it runs on."""
        return self.adapter.form if self.adapter else BaseForm()

    def deliver(self, event: Progress | Exception) -> None:
        """Hand an event to the reader; call it in the event loop."""
        self._events.put_nowait(event)

    def cancel(self) -> None:
        """Give the row back before the next step."""
        self.cancelled = True

    async def events(self) -> AsyncIterator[Progress]:
        """Every step, the last one with its reason. Leaving the loop early frees the row.

        Raises the error that was delivered, which says that generation broke.
        """
        finished = False
        try:
            while not finished:
                event = await self._events.get()
                if isinstance(event, Exception):
                    raise event
                finished = event.finish_reason is not None
                yield event
        finally:
            if not finished:
                self.cancel()
