"""The client of a TGI server. TGI takes a prompt in place of messages; ``adapter_id`` names the adapter. A
parameter without a counterpart is refused, unless its value has no effect.

Source: Text Generation Inference, "Messages and generate API" and "LoRA"; ``huggingface_hub``'s client.
"""

from __future__ import annotations

import contextlib
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import AsyncInferenceClient, set_async_client_factory
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OverloadedError, TextGenerationError
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tunewheel_contracts.errors import TunewheelError
from tunewheel_runtime.chat import NO_KEY, without_key
from tunewheel_runtime.request_ids import outgoing

from tunewheel_serve_gateway.upstream.bases import EngineIdentity, identity_of_info
from tunewheel_serve_gateway.upstream.openai import OpenAiUpstream
from tunewheel_serve_gateway.upstream.protocol import (
    Chunk,
    ModelNotLoaded,
    Timeouts,
    UpstreamBroken,
    UpstreamRefused,
    UpstreamSilent,
    failure,
    lost,
    redirected,
    unreachable,
)

Render = Callable[[list[dict[str, str]], Mapping[str, Any]], str]
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
NUMBERS: dict[str, tuple[type, ...]] = dict.fromkeys(
    ("temperature", "top_p", "frequency_penalty", "repetition_penalty"), (int, float)
)
WHOLE_NUMBERS: dict[str, tuple[type, ...]] = dict.fromkeys(
    ("max_tokens", "max_completion_tokens", "seed", "top_k"), (int,)
)


class InvalidTemplate(TunewheelError):
    """The chat template cannot be used; the message names the setting."""


class StopFilter:
    """Removes stop strings from a text. TGI sends them as part of the text; OpenAI's protocol does not."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._most = max(map(len, stops), default=1) - 1
        """How much of the text's end may be the beginning of a stop string."""
        self._held = ""
        self._over = False

    def pass_on(self, text: str, *, is_last: bool = False) -> str:
        """Return the text that can be sent now; ``is_last``: all of it."""
        if self._over:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        self._over = bool(found)
        at = min(found, default=len(self._held) if is_last else max(0, len(self._held) - self._most))
        shown, self._held = self._held[:at], self._held[at:]
        return shown


class TgiUpstream:
    """One TGI server. ``render`` applies the base model's chat template.

    Requests for a base model send no ``adapter_id``: for one that the server reports, or for which
    ``is_adapter`` is false. Adapters are loaded through vLLM's adapter endpoints if the engine has them.
    Plain TGI has only the adapters that it was started with.
    """

    def __init__(
        self,
        url: str,
        *,
        render: Render,
        is_adapter: Callable[[str], bool],
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeouts: Timeouts | None = None,
        retry_after: int = 2,
    ) -> None:
        self._url = url.rstrip("/") + "/generate_stream"
        self._render = render
        self._is_adapter = is_adapter
        # Without a token here the library would send the machine's Hugging Face token to the engine.
        self._token = api_key or NO_KEY
        self._timeout = (timeouts or Timeouts()).first_byte  # The library has one time-out for all phases.
        self._retry_after = str(retry_after)
        self.identity = EngineIdentity()
        # The library takes options of its client only through a factory for the whole process.
        set_async_client_factory(lambda: _client(tls, self._retry_after))
        self._adapters = OpenAiUpstream(
            url, api_key=api_key, tls=tls, timeouts=timeouts, retry_after=retry_after
        )

    async def close(self) -> None:
        await self._adapters.close()

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        text: list[str] = []
        scored: list[Any] = []
        last: Chunk = {}
        async for chunk in self.stream(body):
            text.extend(choice["delta"].get("content") or "" for choice in chunk["choices"])
            scored.extend(
                one for choice in chunk["choices"] for one in (choice["logprobs"] or {}).get("content", ())
            )
            last = {**last, **chunk, "choices": chunk["choices"] or last.get("choices")}
        finish = last["choices"][0]["finish_reason"] if last.get("choices") else "stop"
        message = {"role": "assistant", "content": "".join(text)}
        logprobs = {"content": scored, "refusal": None} if body.get("logprobs") else None
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs}
        return {**last, "object": "chat.completion", "choices": [choice]}

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        model = body["model"]
        # A server that was started on a directory is asked by the path, which the catalog does not have.
        is_adapter = self._is_adapter(model) and model not in self.identity.bases
        parameters = parameters_of(body, adapter_id=model if is_adapter else None)
        # One client per request: a shared client keeps every streamed response open until it is closed.
        client = AsyncInferenceClient(
            model=self._url, token=self._token, timeout=self._timeout, headers=outgoing()
        )
        stamp = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        try:
            tokens = await client.text_generation(
                self._render(body["messages"], body.get("chat_template_kwargs") or {}),
                details=True,
                stream=True,
                **parameters,
            )
            visible = StopFilter(stops_of(body))
            scored: list[Any] | None = [] if body.get("logprobs") else None
            delta = {"role": "assistant"}  # Sent once, because clients concatenate the values of each field.
            async for token in tokens:
                text = "" if token.token.special else token.token.text
                text = visible.pass_on(text, is_last=token.details is not None)
                if scored is not None and not token.token.special:
                    scored.append(_entry(token.token))
                if text:
                    yield _chunk(stamp, {**delta, "content": text}, None, scored=scored)
                    delta = {}
                if token.details is not None:
                    finish = "length" if token.details.finish_reason == "length" else "stop"
                    yield _chunk(stamp, delta, finish, usage=_usage(token.details), scored=scored)
                    return
            raise UpstreamBroken("the engine broke off its answer; send the request again")
        except OverloadedError as error:
            said = without_key(str(error), self._token)
            raise UpstreamRefused(429, {"message": said}, retry_after=self._retry_after) from error
        except TextGenerationError as error:
            said = without_key(str(error), self._token)
            if "adapter" in said.lower():
                message = f"the engine has no adapter {model}: {said}"
                raise ModelNotLoaded(message, param="model") from error
            raise UpstreamRefused(400, {"message": said}) from error
        except HfHubHTTPError as error:
            response = error.response
            raise failure(
                response.status_code,
                _body_of(error),
                key=self._token,
                retry_after=response.headers.get("retry-after"),
                default_retry_after=self._retry_after,
            ) from error
        except (InferenceTimeoutError, httpx2.ReadTimeout) as error:
            raise UpstreamSilent("the engine did not answer in time; send a shorter request") from error
        except httpx2.TransportError as error:
            if not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                raise lost(error, self._retry_after) from error
            raise unreachable(error, self._retry_after) from error
        finally:
            await client.close()

    async def list_models(self) -> set[str] | None:
        info, listed = EngineIdentity(), None
        with contextlib.suppress(ModelNotLoaded):  # Raised where the server has no such path.
            info = identity_of_info(await self._adapters.read("/info"))
        with contextlib.suppress(ModelNotLoaded):
            listed = await self._adapters.list_models()
        self.identity = info if info.bases else self._adapters.identity
        return listed

    async def load_adapter(self, name: str, path: Path) -> None:
        try:
            await self._adapters.load_adapter(name, path)
        except (
            ModelNotLoaded
        ):  # Plain TGI has no such path, and answers only if it was started with the adapter.
            asked = [{"role": "user", "content": "."}]
            await self.complete({"model": name, "messages": asked, "max_tokens": 1, "temperature": 0})

    async def unload_adapter(self, name: str) -> None:
        await self._adapters.unload_adapter(name)


def _client(tls: ssl.SSLContext | None, retry_after: str) -> httpx2.AsyncClient:
    """Return an HTTP client like the one that ``huggingface_hub`` creates, but with ``tls`` and without
    redirects."""

    async def look_at(response: httpx2.Response) -> None:
        if 300 <= response.status_code < 400:
            raise redirected(response.status_code, retry_after)
        if response.status_code >= 400:
            await response.aread()  # The code that raises the error needs the body.

    return httpx2.AsyncClient(
        verify=True if tls is None else tls, event_hooks={"response": [look_at]}, timeout=None
    )


def _body_of(error: HfHubHTTPError) -> bytes:
    try:
        return error.response.content
    except httpx2.ResponseNotRead:  # The body is read only where its length was announced.
        return str(error).encode()


def _chunk(
    stamp: Chunk,
    delta: dict[str, str],
    finish: str | None,
    *,
    usage: dict[str, int] | None = None,
    scored: list[Any] | None = None,
) -> Chunk:
    """Return a chunk. ``scored``: the entries of the tokens since the last chunk, which it takes."""
    logprobs = {"content": scored[:], "refusal": None} if scored else None
    if scored:
        scored.clear()
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return {"object": "chat.completion.chunk", **stamp, "choices": [choice], "usage": usage}


def _entry(token: Any) -> dict[str, Any]:
    """Return a token in OpenAI's shape. TGI sends the log-probability of every token, asked or not."""
    written = {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode())}
    return {**written, "top_logprobs": []}


def _usage(details: Any) -> dict[str, int]:
    # Only newer servers send the length of the prompt.
    prompt, answer = int(getattr(details, "input_length", None) or 0), int(details.generated_tokens)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def load_template(path: Path | None) -> Render:
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

    def render(messages: list[dict[str, str]], variables: Mapping[str, Any]) -> str:
        return template.render(messages=messages, add_generation_prompt=True, **variables)

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
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name in NOT_SERVED and value not in NOT_SERVED[name]:
            raise _refused(name, "is not served by this engine; leave it out")
        types = (NUMBERS | WHOLE_NUMBERS).get(name)
        if types and (isinstance(value, bool) or not isinstance(value, types)):
            raise _refused(name, "must be a number" if name in NUMBERS else "must be a whole number")
        if name in ("max_tokens", "max_completion_tokens") and value < 1:
            raise _refused(name, "must be at least 1")


def _refused(name: str, reason: str) -> UpstreamRefused:
    return UpstreamRefused(400, {"message": f"{name} {reason}", "param": name, "code": "unsupported_value"})
