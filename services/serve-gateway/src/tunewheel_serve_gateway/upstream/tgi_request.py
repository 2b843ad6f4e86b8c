"""Translates a request of OpenAI's API into TGI's: a prompt in place of messages, and the parameters. A
parameter without a counterpart is refused, unless its value has no effect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tunewheel_contracts.errors import TunewheelError

from tunewheel_serve_gateway.upstream.protocol import UpstreamRefused

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of OpenAI's ChatML, which SmolLM2, Qwen and other models use."""
NOT_SERVED: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "presence_penalty": (0,),
    "min_p": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
}
"""Parameters without a counterpart, and their values that have no effect."""
NUMBERS = ("temperature", "top_p", "frequency_penalty", "repetition_penalty")
WHOLE_NUMBERS = ("max_tokens", "max_completion_tokens", "seed", "top_k")


class InvalidTemplate(TunewheelError):
    """The chat template cannot be used; the message names the setting."""


def load_template(path: Path | None) -> Callable[[list[dict[str, str]]], str]:
    """Return the renderer of a model's chat template (Jinja, as transformers reads it); ChatML without one.
    Raises InvalidTemplate: the file is missing or no Jinja template."""
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


def parameters_of(body: dict[str, Any], *, adapter_id: str | None) -> dict[str, Any]:
    """Return the arguments for ``text_generation``. Raises UpstreamRefused: a parameter has the wrong type or
    no counterpart in TGI; ``param`` names it."""
    _check(body)
    temperature, top_p, top_k = body.get("temperature"), body.get("top_p"), body.get("top_k")
    wanted = {
        "adapter_id": adapter_id,
        "max_new_tokens": body.get("max_completion_tokens") or body.get("max_tokens"),
        "temperature": temperature or None,
        "do_sample": temperature is None or temperature > 0,
        "top_p": top_p if top_p and top_p < 1 else None,
        "top_k": top_k if top_k and top_k > 0 else None,
        "seed": body.get("seed"),
        "stop": stops_of(body) or None,
        "frequency_penalty": body.get("frequency_penalty"),
        "repetition_penalty": body.get("repetition_penalty"),
    }
    return {name: value for name, value in wanted.items() if value is not None}


def stops_of(body: dict[str, Any]) -> list[str]:
    """Return the stop strings. Raises UpstreamRefused."""
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise _refused("stop", "must be a string or a list of strings")
    return stops


def _check(body: dict[str, Any]) -> None:
    for n, message in enumerate(body.get("messages", ())):
        if message["role"] == "tool" or message.get("tool_calls"):
            raise _refused(f"messages[{n}]", "is about tools, which this engine does not serve; leave it out")
    for name, neutral in NOT_SERVED.items():
        if body.get(name) is not None and body[name] not in neutral:
            raise _refused(name, "is not served by this engine; leave it out")
    for names, types, kind in ((NUMBERS, int | float, "a number"), (WHOLE_NUMBERS, int, "a whole number")):
        for name in names:
            value = body.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, types)):
                raise _refused(name, f"must be {kind}")
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and body[name] < 1:
            raise _refused(name, "must be at least 1")


def _refused(name: str, reason: str) -> UpstreamRefused:
    return UpstreamRefused(400, {"message": f"{name} {reason}", "param": name, "code": "unsupported_value"})
