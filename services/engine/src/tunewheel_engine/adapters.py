"""The adapters and whole models that requests can name.

A *whole model* has weights of its own: a fully fine-tuned model, or an adapter that is more than a LoRA. This
module also checks which files may be loaded.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_basemodel.errors import ModelFilesError
from tunewheel_basemodel.loading import ADAPTER_CONFIG
from tunewheel_basemodel.locate import BaseModel
from tunewheel_generation.generation import Adapter, BaseForm, Form

from tunewheel_engine.errors import AdapterRefused, ModelNotFound

if TYPE_CHECKING:
    from tunewheel_generation.lora import LoraWeights

NOTE = "tunewheel.json"
"""File beside an adapter's weights that names the base and the precision it was trained on."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,199}")


class AdapterShelf:
    """Loaded adapters and whole models by name.

    ``read`` loads the weights in a directory, for the form of the base that the directory's note names; it
    may take seconds. ``drop`` is called with the form of an unloaded model.
    """

    def __init__(
        self,
        base: BaseModel,
        roots: tuple[Path, ...],
        read: Callable[[Path, BaseForm], tuple[Form, LoraWeights | None]],
        *,
        drop: Callable[[Form], None] = lambda _: None,
    ) -> None:
        self._base = base
        self._roots = roots
        self._read = read
        self._drop = drop
        self._adapters: dict[str, Adapter] = {}
        self._locks: dict[str, threading.Lock] = {}

    def names(self) -> list[Adapter]:
        return list(self._adapters.values())

    def find(self, name: str) -> Adapter | None:
        """Return the adapter of this name; None for the base model.

        Raises ModelNotFound.
        """
        if name == self._base.name:
            return None
        if adapter := self._adapters.get(name):
            return adapter
        raise ModelNotFound(
            f"The model {name!r} does not exist; load the adapter first, or use {self._base.name!r}",
            param="model",
        )

    def load(self, name: str, path: str) -> Adapter:
        """Load the adapter, or the whole model, in ``path`` under ``name``.

        Raises:
            AdapterRefused: the name is invalid or in use, the path is outside the allowed directories, the
                files are not safetensors or do not fit the base, or memory for a whole model is missing.
            ModelNotFound: there is no such directory.
        """
        if not _NAME.fullmatch(name):
            raise AdapterRefused(
                f"lora_name {name!r} must be 1 to 200 letters, digits or ._/:-, the first a letter or digit",
                param="lora_name",
            )
        with self._locks.setdefault(name, threading.Lock()):  # Two gateways may load the same model at once.
            if name in self._adapters or name == self._base.name:
                raise AdapterRefused(
                    f"The lora adapter {name!r} has already been loaded; unload it or rename",
                    param="lora_name",
                )
            directory = self._resolve(path)
            try:
                form, weights = self._read(directory, self._form(directory))
            except ModelFilesError as error:
                raise AdapterRefused(error.reason, param="lora_path") from error
            self._adapters[name] = Adapter(name, directory, form, weights)
            return self._adapters[name]

    def unload(self, name: str) -> None:
        """Unload ``name``. Requests that already use the model are finished. Raises ModelNotFound."""
        gone = self._adapters.pop(name, None)
        if gone is None:
            raise ModelNotFound(
                f"The lora adapter {name!r} cannot be found; it is not loaded", param="lora_name"
            )
        self._drop(gone.form)

    def _resolve(self, path: str) -> Path:
        """Return the directory of ``path``, which is absolute or relative to a root. Links are followed."""
        if "\0" not in path:
            for root in self._roots:
                directory = (root / path).resolve()
                if directory.is_relative_to(root) and directory.is_dir():
                    return directory
            if any((root / path).resolve().is_relative_to(root) for root in self._roots):
                raise ModelNotFound(
                    f"No adapter found for {path!r}; give an existing directory", param="lora_path"
                )
        allowed = ", ".join(str(root) for root in self._roots)
        raise AdapterRefused(
            f"lora_path {path!r} is not below an allowed directory ({allowed}); put the adapter there, or "
            "start the engine with TUNEWHEEL_ADAPTER_ROOTS",
            param="lora_path",
        )

    def _form(self, directory: Path) -> BaseForm:
        note = _read_object(directory / NOTE)
        if note is None:
            return self._unnoted_form(directory)
        for field, ours in (("base_model", self._base.name), ("base_revision", self._base.revision)):
            if (theirs := note.get(field)) not in (None, ours):
                raise AdapterRefused(
                    f"the adapter was trained on {field} {theirs!r}, this engine serves {ours!r}; "
                    "start an engine with that base, or train the adapter on this one",
                    param="lora_path",
                )
        quantization, dtype = note.get("quantization"), note.get("dtype") or "float32"
        if quantization not in (None, "nf4") or dtype not in ("float32", "bfloat16"):
            raise AdapterRefused(
                f"{NOTE} has quantization {quantization!r} and dtype {dtype!r}; use quantization null or "
                "'nf4', and dtype 'float32' or 'bfloat16'",
                param="lora_path",
            )
        return BaseForm(quantization, dtype) if quantization else BaseForm()

    def _unnoted_form(self, directory: Path) -> BaseForm:
        # peft writes the base's name, or the path from which the base was loaded. Only another hub id proves
        # that the base differs.
        config = _read_object(directory / ADAPTER_CONFIG) or {}
        trained_on = config.get("base_model_name_or_path")
        if (
            isinstance(trained_on, str)
            and re.fullmatch(r"[\w.-]+/[\w.-]+", trained_on)
            and trained_on != self._base.name
        ):
            raise AdapterRefused(
                f"the adapter was trained on {trained_on!r}, this engine serves {self._base.name!r}; start "
                "an engine with that base",
                param="lora_path",
            )
        return BaseForm()


def _read_object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise AdapterRefused(
            f"{path.name} is not JSON ({error}); write it again", param="lora_path"
        ) from error
    if not isinstance(content, dict):
        raise AdapterRefused(f"{path.name} is not a JSON object; write it again", param="lora_path")
    return content
