"""The weights in the engine's memory: the base in each form that adapters need, and whole models."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from tunewheel_basemodel.loading import ADAPTER_CONFIG
from tunewheel_basemodel.locate import BaseModel
from tunewheel_generation.generation import BaseForm, Form, WholeModel

from tunewheel_engine.errors import AdapterRefused
from tunewheel_engine.memory import free_bytes
from tunewheel_engine.scheduler import Scheduler
from tunewheel_engine.settings import Settings

if TYPE_CHECKING:
    from tunewheel_generation.lora import LoraWeights
    from tunewheel_generation.runner import Runner

_log = structlog.get_logger(__name__)
COPIES = 2
"""Weights lie in memory so often while they are loaded: as read, and as they will be computed with."""


class Weights:
    """Loads weights, and gives each form of them a lane of ``scheduler``. Called by one thread at a time."""

    def __init__(self, base: BaseModel, settings: Settings, scheduler: Scheduler) -> None:
        self._base = base
        self._settings = settings
        self._scheduler = scheduler
        self._forms: dict[BaseForm, Runner] = {}
        self._whole: set[WholeModel] = set()

    def of_base(self, form: BaseForm) -> Runner:
        """Return the base in ``form``, loaded when it is first asked for."""
        if form not in self._forms:
            runner = self._load(self._base, form)
            self._forms[form] = runner
            self._serve(form, runner)
        return self._forms[form]

    def read(self, path: Path, form: BaseForm) -> tuple[Form, LoraWeights | None]:
        """Return what requests for the model in ``path`` run on, and what it adds to that.

        A plain LoRA adds to the base in ``form``. An adapter that is more than that, and a fully trained
        model, becomes a whole model and adds nothing.

        Raises:
            ModelFilesError: the files do not load, or do not fit the base.
            AdapterRefused: a whole model has no room, or another vocabulary.
        """
        from tunewheel_generation.lora import read_lora, takes_whole_model

        if not (path / ADAPTER_CONFIG).exists() and (path / "config.json").is_file():
            return self._load_whole(WholeModel(path)), None
        if takes_whole_model(path):
            return self._load_whole(WholeModel(path, adapter_on=form)), None
        runner = self.of_base(form)
        return form, read_lora(path, layers=runner.layers, dtype=runner.dtype, device=runner.device)

    def drop(self, form: Form) -> None:
        """Give up a whole model once its requests are done. The base stays in all its forms."""
        if isinstance(form, WholeModel):
            self._whole.discard(form)
            self._scheduler.remove_lane(form)

    def _load_whole(self, model: WholeModel) -> WholeModel:
        import torch

        gc.collect()  # what is left of models that were dropped
        self._require_room()
        try:
            if model.adapter_on is None:
                runner = self._load(replace(self._base, path=model.path), BaseForm())
            else:
                runner = self._load(self._base, model.adapter_on, adapter=model.path)
        except torch.OutOfMemoryError as error:
            raise AdapterRefused(
                "no free slot for a whole model: the GPU's memory was full before it was loaded; unload "
                "another, lower TUNEWHEEL_MAX_BATCH, or start an engine on this one elsewhere",
                param="lora_path",
            ) from error
        if runner.tokenizer.get_vocab() != self.of_base(BaseForm()).tokenizer.get_vocab():
            raise AdapterRefused(
                f"{model.path.name} has another vocabulary than {self._base.name!r}; start an engine on it",
                param="lora_path",
            )
        self._serve(model, runner)
        self._whole.add(model)
        return model

    def _require_room(self) -> None:
        """Refuse a whole model that would take memory from those that are served.

        Raises:
            AdapterRefused: says "no free slot", by which callers know that unloading another one helps.
        """
        base, most = self.of_base(BaseForm()), self._settings.max_whole_models
        if len(self._whole) >= most:
            raise AdapterRefused(
                f"no free slot for a whole model: {most} are loaded (TUNEWHEEL_MAX_WHOLE_MODELS); unload "
                "one, or start an engine on this one",
                param="lora_path",
            )
        needed, free = COPIES * base.weight_bytes, free_bytes(base.device)
        if free is not None and free < needed:
            raise AdapterRefused(
                f"no free slot for a whole model: loading it takes {needed / 1e9:.1f} GB of memory, and "
                f"{free / 1e9:.1f} GB are free; unload another, or start an engine on this one elsewhere",
                param="lora_path",
            )

    def _load(self, model: BaseModel, form: BaseForm, *, adapter: Path | None = None) -> Runner:
        from tunewheel_generation.runner import load_runner

        settings, began = self._settings, time.monotonic()
        runner = load_runner(
            model,
            quantization=form.quantization,
            trained_dtype=form.dtype,
            dtype=settings.dtype,
            rows=settings.max_batch,
            tokens=settings.max_context,
            adapter=adapter,
        )
        seconds = round(time.monotonic() - began, 1)
        path = str(adapter or model.path)
        _log.info("weights_loaded", path=path, quantization=form.quantization, seconds=seconds)
        return runner

    def _serve(self, form: Form, runner: Runner) -> None:
        from tunewheel_generation.lane import Lane

        lane = Lane(
            runner,
            rows=self._settings.max_batch,
            prefill_tokens=self._settings.prefill_tokens,
            deliver=self._scheduler.deliver,
        )
        self._scheduler.add_lane(form, lane)
