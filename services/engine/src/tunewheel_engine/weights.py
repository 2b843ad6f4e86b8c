"""Loads weights: the base, in each form (quantization, dtype) that adapters need, and whole models."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from tunewheel_basemodel.loading import ADAPTER_CONFIG
from tunewheel_basemodel.locate import BaseModel
from tunewheel_generation.generation import BaseForm, Form, WholeModel
from tunewheel_generation.memory import free_bytes, untouched_bytes

from tunewheel_engine.errors import AdapterRefused
from tunewheel_engine.scheduler import Scheduler
from tunewheel_engine.settings import Settings

if TYPE_CHECKING:
    from tunewheel_generation.lora import LoraWeights
    from tunewheel_generation.runner import Runner

_log = structlog.get_logger(__name__)
NO_SLOT = "no free slot for a whole model"
"""Beginning of the message. Callers recognise by it that unloading another whole model helps."""
ON_ITS_OWN = "start an engine on this one"
DROP_SECONDS = 30.0
"""Longest wait for the last requests of dropped models; after that their memory counts as in use."""
SHAPE = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
)
"""Fields of a model's configuration that training does not change."""


class Weights:
    """Loads weights and adds a lane to ``scheduler`` for each form. Several threads may load at the same
    time: an adapter for a form that is loaded does not wait for a whole model."""

    def __init__(self, base: BaseModel, settings: Settings, scheduler: Scheduler) -> None:
        self._base = base
        self._settings = settings
        self._scheduler = scheduler
        self._forms: dict[BaseForm, Runner] = {}
        self._whole: dict[WholeModel, Runner] = {}
        self._one_form = threading.Lock()
        self._one_whole = threading.Lock()

    def of_base(self, form: BaseForm) -> Runner:
        """Return the base in ``form``. It is loaded on the first call."""
        with self._one_form:
            if form not in self._forms:
                runner = self._load(self._base, form)
                self._forms[form] = runner
                self._serve(form, runner)
            return self._forms[form]

    def read(self, path: Path, form: BaseForm) -> tuple[Form, LoraWeights | None]:
        """Load the model in ``path``; return the form that its requests run on, and its LoRA weights.

        A plain LoRA runs on the base in ``form``. A fully fine-tuned model, or an adapter that is more than a
        LoRA, becomes a whole model and has no LoRA weights.

        Raises:
            ModelFilesError: the files cannot be loaded, or do not fit the base.
            AdapterRefused: memory for a whole model is missing, or its shape differs from the base's.
        """
        from tunewheel_generation.lora import read_lora, takes_whole_model

        if not (path / ADAPTER_CONFIG).exists() and (path / "config.json").is_file():
            return self._load_whole(WholeModel(path)), None
        if takes_whole_model(path):
            return self._load_whole(WholeModel(path, adapter_on=form)), None
        runner = self.of_base(form)
        return form, read_lora(path, layers=runner.layers, dtype=runner.dtype, device=runner.device)

    def drop(self, form: Form) -> None:
        """Drop a whole model once its requests are done. The base always stays loaded."""
        if isinstance(form, WholeModel):
            self._whole.pop(form, None)
            self._scheduler.remove_lane(form)

    def _load_whole(self, model: WholeModel) -> WholeModel:
        with self._one_whole:
            base = self.of_base(BaseForm())
            if model.adapter_on is None:
                self._require_shape(model.path)
            self._require_room(base)
            runner = self._runner_of(model)
            if (why := _unlike(runner, base)) is not None:
                raise _refused(f"{model.path.name} has another {why} than {self._base.name!r}", ON_ITS_OWN)
            self._serve(model, runner)
            self._whole[model] = runner
            return model

    def _runner_of(self, model: WholeModel) -> Runner:
        import torch

        try:
            if model.adapter_on is None:
                return self._load(replace(self._base, path=model.path), BaseForm())
            return self._load(self._base, model.adapter_on, adapter=model.path)
        except torch.OutOfMemoryError as error:
            raise _refused(
                f"{NO_SLOT}: the GPU's memory was full before it was loaded",
                f"unload another, lower TUNEWHEEL_MAX_BATCH, or {ON_ITS_OWN}",
            ) from error
        except (RuntimeError, AttributeError, ImportError) as error:
            raise _refused(f"{model.path.name} does not load ({error})", "train it again") from error

    def _require_shape(self, path: Path) -> None:
        ours, theirs = _shape(self._base.path), _shape(path)
        for name in SHAPE:
            if ours[name] != theirs[name]:
                raise _refused(
                    f"{path.name} has {name} {theirs[name]!r}, and {self._base.name!r} has {ours[name]!r}",
                    ON_ITS_OWN,
                )

    def _require_room(self, base: Runner) -> None:
        """Refuse a whole model where the free slots or the free memory do not suffice."""
        most = self._settings.max_whole_models
        if most == 0:
            raise _refused("this engine loads no whole models (TUNEWHEEL_MAX_WHOLE_MODELS is 0)", ON_ITS_OWN)
        if len(self._whole) >= most:
            raise _refused(
                f"{NO_SLOT}: {most} are loaded (TUNEWHEEL_MAX_WHOLE_MODELS)", f"unload one, or {ON_ITS_OWN}"
            )
        self._scheduler.wait_until_dropped(timeout_seconds=DROP_SECONDS)
        gc.collect()  # peft leaves reference cycles.
        free = free_bytes(base.device)
        if free is None:
            return
        promised = sum(runner.memory_bytes for runner in (*self._forms.values(), *self._whole.values()))
        free -= untouched_bytes(base.device, promised)
        needed = base.memory_bytes + base.weight_bytes  # While weights are read, they are in memory twice.
        if free < needed:
            left = max(free, 0) / 1e9
            raise _refused(
                f"{NO_SLOT}: it takes {needed / 1e9:.1f} GB of memory with its cache, and {left:.1f} GB "
                "are not reserved for other models",
                f"unload another, lower TUNEWHEEL_MAX_BATCH or TUNEWHEEL_MAX_CONTEXT, or {ON_ITS_OWN}",
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


def _refused(what: str, do: str) -> AdapterRefused:
    return AdapterRefused(f"{what}; {do}", param="lora_path")


def _unlike(runner: Runner, base: Runner) -> str | None:
    """Return the first property in which a loaded model differs from the base; None: they agree."""
    if runner.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        return "vocabulary"
    if runner.tokenizer.chat_template != base.tokenizer.chat_template:
        return "chat template"
    return "context length" if runner.max_tokens < base.max_tokens else None


def _shape(path: Path) -> dict[str, Any]:
    """Return the ``SHAPE`` fields of the model in ``path``. Fields that its ``config.json`` leaves out have
    transformers' defaults. None: the model type has no such field."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise _refused(f"{path.name}/config.json cannot be read ({error})", "train it again") from error
    return {name: getattr(config, name, None) for name in SHAPE}
