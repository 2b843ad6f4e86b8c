"""Errors about the files of a model.

ModelFilesError(ValueError)
  ├── BaseModelNotFound    the base model cannot be found, or its files are refused
  │     └── BaseModelUnreachable   the hub does not answer; a retry may succeed later
  └── InvalidAdapter       the adapter directory is not a PEFT adapter in safetensors
InvalidChat(ValueError)    the messages, or the chat template, cannot be rendered
"""

from __future__ import annotations


class ModelFilesError(ValueError):
    """Base class. ``field``: the field at fault. ``reason``: the fault and the fix."""

    field = "path"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{self.field}: {reason}")


class BaseModelNotFound(ModelFilesError):
    """No usable base model under this name; ``reason`` says what was tried and what to do."""

    field = "base_model"


class BaseModelUnreachable(BaseModelNotFound):
    """The hub did not answer, so it is unknown whether the model exists."""


class InvalidAdapter(ModelFilesError):
    """The directory does not hold a PEFT adapter in safetensors that fits the base model."""

    field = "adapter"


class InvalidChat(ValueError):
    """The messages cannot be rendered by the tokenizer's chat template."""

    field = "messages"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{self.field}: {reason}")
