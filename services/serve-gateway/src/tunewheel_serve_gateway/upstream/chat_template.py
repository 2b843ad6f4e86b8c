"""Renders messages as a prompt, for engines that take prompts in place of messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tunewheel_contracts.errors import TunewheelError

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of OpenAI's ChatML, which SmolLM2, Qwen and other models use."""


class InvalidTemplate(TunewheelError):
    """The chat template cannot be used; the message names the setting."""


def load_template(path: Path | None) -> Callable[[list[dict[str, str]]], str]:
    """Return the renderer of a model's chat template (Jinja, as transformers reads it); ChatML without one.

    Raises:
        InvalidTemplate: the file is missing or no Jinja template.
    """
    try:
        source = path.read_text(encoding="utf-8") if path else CHATML
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(source)
    except (OSError, UnicodeDecodeError, TemplateError) as error:
        raise InvalidTemplate(
            f"TUNEWHEEL_ENGINE_CHAT_TEMPLATE {path}: {error}; name the base model's chat_template.jinja"
        ) from error

    def render(messages: list[dict[str, str]]) -> str:
        return template.render(messages=messages, add_generation_prompt=True)

    return render
