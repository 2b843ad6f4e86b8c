"""The engine, without its HTTP interfaces: base model, adapters, scheduler and metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewheel_basemodel.detokenizing import TokenBytes
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_generation.constraint import Grammars
from tunewheel_generation.generation import Adapter, BaseForm, Generation, Progress, WholeModel
from tunewheel_runtime.telemetry import Telemetry, make_telemetry

from tunewheel_engine.adapters import AdapterShelf
from tunewheel_engine.metrics import Metrics
from tunewheel_engine.scheduler import Scheduler
from tunewheel_engine.settings import Settings
from tunewheel_engine.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Engine:
    """A base model with its adapters and whole models, the scheduler and the metrics."""

    base: BaseModel
    tokenizer: PreTrainedTokenizerBase
    max_context: int
    settings: Settings
    shelf: AdapterShelf
    scheduler: Scheduler
    telemetry: Telemetry
    metrics: Metrics
    grammars: Grammars
    token_bytes: TokenBytes
    started: int

    def model_name(self, adapter: Adapter | None) -> str:
        return adapter.name if adapter else self.base.name

    @property
    def whole_models(self) -> dict[str, Any]:
        """How many whole models may be loaded, and the names of those that are. The gateway reads this before
        it downloads one."""
        loaded = [one.name for one in self.shelf.names() if isinstance(one.form, WholeModel)]
        return {"max_whole_models": self.settings.max_whole_models, "whole_models": loaded}

    def start(self, generation: Generation) -> AsyncGenerator[Progress]:
        """Queue ``generation`` and return an iterator over its steps. Closing the iterator early frees its
        row.

        Raises Overloaded, EngineFailed, ModelNotFound; the steps raise EngineFailed.
        """
        [steps] = self.start_all([generation])
        return steps

    def start_all(self, generations: Sequence[Generation]) -> list[AsyncGenerator[Progress]]:
        """Queue the answers of one request, all of them or none. Raises as ``start`` does."""
        self.scheduler.submit(*generations)
        return [self._follow(generation, time.monotonic()) for generation in generations]

    async def _follow(self, generation: Generation, began: float) -> AsyncGenerator[Progress]:
        model, count, done = self.model_name(generation.adapter), 0, False
        try:
            async for step in generation.events():
                count += 1
                seconds = time.monotonic() - began
                if count == 1:
                    self.metrics.first_token(model, seconds=seconds)
                if step.finish_reason:
                    done = True
                    prompt = len(generation.prompt)
                    self.metrics.finished(
                        model, step.finish_reason, prompt=prompt, generated=count, seconds=seconds
                    )
                yield step
        finally:
            if not done:
                generation.cancel()
                self.metrics.cancelled(model, generated=count)


def load_engine(
    settings: Settings, *, on_failure: Callable[[], None], telemetry: Telemetry | None = None
) -> Engine:
    """Find and load the base model. Takes seconds; the first time the model may also have to be converted.

    ``on_failure`` is called in the event loop when generation fails. ``telemetry`` None: made from the
    settings. Raises BaseModelNotFound.
    """
    import torch

    if settings.threads:
        torch.set_num_threads(settings.threads)
    base = locate_base_model(
        settings.base_model, cache_dir=settings.cache_dir, revision=settings.base_revision
    )
    scheduler = Scheduler(max_queue=settings.max_queue, max_batch=settings.max_batch, on_failure=on_failure)
    weights = Weights(base, settings, scheduler)
    runner = weights.of_base(BaseForm())
    shelf = AdapterShelf(base, settings.allowed_roots, weights.read, drop=weights.drop)
    telemetry = telemetry or make_telemetry("engine", settings.otlp_endpoint)
    metrics = Metrics(
        telemetry.meter,
        running=lambda: scheduler.running,
        waiting=lambda: scheduler.waiting,
        loaded=lambda: len(shelf.names()),
    )
    return Engine(
        base=base,
        tokenizer=runner.tokenizer,
        max_context=runner.max_tokens,
        settings=settings,
        shelf=shelf,
        scheduler=scheduler,
        telemetry=telemetry,
        metrics=metrics,
        grammars=Grammars(runner.tokenizer, runner.end_tokens),
        token_bytes=TokenBytes(runner.tokenizer),
        started=int(time.time()),
    )
