"""One request to generate, and the events that it yields."""

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
    """The form of the base that an adapter was trained on. ``dtype`` only matters with a quantization: it is
    the precision that was quantised."""

    quantization: Literal["nf4"] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, eq=False)
class WholeModel:
    """A model with weights of its own: a fully fine-tuned model, or the base with an adapter merged into it
    that is more than a LoRA. Loading the same files twice gives two different whole models."""

    path: Path
    adapter_on: BaseForm | None = None
    """The form of the base that the adapter in ``path`` changes; None: ``path`` holds a fully fine-tuned
    model."""


Form = BaseForm | WholeModel
"""The weights that a request runs on. Requests of the same form share a batch."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter or whole model that requests can name. A request keeps a reference to it, so that it can be
    finished after the model was unloaded."""

    name: str
    path: Path
    form: Form
    weights: LoraWeights | None
    """The LoRA weights that are added to ``form``; None for a whole model."""


@dataclass(frozen=True)
class Token:
    """A generated token and its text. The text is empty while a character is incomplete."""

    id: int
    text: str
    special: bool
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens at this position with their log probabilities, as many as were asked for."""


@dataclass(frozen=True)
class Progress:
    """One step of one request: the text that may be sent now, the token, and the finish reason if it is the
    last step."""

    text: str
    token: Token
    finish_reason: FinishReason | None = None
    stopped_by: Literal["eos", "string", None] = None


@dataclass(eq=False)
class Generation:
    """A request to generate up to ``max_tokens`` tokens after ``prompt``. With 0 no token is generated, and
    no event comes.

    Created and read in the event loop, which also receives its events by ``deliver``. Only the ``cancelled``
    flag is used by both the event loop and the thread that generates.
    """

    prompt: list[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    adapter: Adapter | None = None
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    ignore_eos: bool = False
    want_logprobs: bool = False
    """Whether to return log probabilities of the model's own distribution: before temperature, penalties,
    biases and grammar."""
    top_logprobs: int = 0
    grammar: Grammar | None = None
    cancelled: bool = False
    cut_at: str = ""
    """A regular expression. ``Writer`` ends an answer as soon as the beginning of its text matches it."""
    answers: Sequence[Sequence[int]] = ()
    """Token ids of given answers whose likelihoods are to be computed."""
    likelihoods: list[float] = field(default_factory=list)
    """Log-likelihood in nats of each of ``answers``; set once the prompt was prefilled."""
    _events: asyncio.Queue[Progress | Exception] = field(default_factory=asyncio.Queue)

    @property
    def form(self) -> Form:
        """The weights that the request runs on."""
        return self.adapter.form if self.adapter else BaseForm()

    def deliver(self, event: Progress | Exception) -> None:
        """Hand an event to the reader; call it in the event loop."""
        self._events.put_nowait(event)

    def cancel(self) -> None:
        """Free the row before the next step."""
        self.cancelled = True

    async def events(self) -> AsyncIterator[Progress]:
        """Yield every step; the last one has a finish reason. Leaving the loop early frees the row.

        Raises the error that was delivered, if generation failed.
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
