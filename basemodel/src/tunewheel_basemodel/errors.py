"""What can be wrong with the files of a model.

ModelFilesError(ValueError)
  ├── BaseModelNotFound    the base model cannot be found, or its files are refused
  │     └── BaseModelUnreachable   the hub does not answer: the same may work later
  └── InvalidAdapter       the adapter directory is not a PEFT adapter in safetensors
InvalidChat(ValueError)    the messages, or the chat template, cannot be rendered
"""

from __future__ import annotations


class ModelFilesError(ValueError):
    """Carries the name of the field at fault and the reason, which says what to do about it."""

    field = "path"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{self.field}: {reason}")


class BaseModelNotFound(ModelFilesError):
    """No usable base model under this name; ``reason`` says what was tried and what to do."""

    field = "base_model"


class BaseModelUnreachable(BaseModelNotFound):
    """The hub did not answer, which says nothing about the model."""


class InvalidAdapter(ModelFilesError):
    """The directory does not hold a PEFT adapter in safetensors that fits the base model."""

    field = "adapter"


class InvalidChat(ValueError):
    """The messages cannot be rendered by the tokenizer's chat template."""

    field = "messages"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{self.field}: {reason}")
