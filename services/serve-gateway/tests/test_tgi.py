"""TGI's protocol against a server that speaks it over a real socket."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_serve_gateway.chat_body import PASSED_ON
from tunewheel_serve_gateway.errors import ApiError
from tunewheel_serve_gateway.upstream.protocol import (
    KeyRefused,
    ModelNotLoaded,
    UpstreamAway,
    UpstreamBroken,
    UpstreamRefused,
)
from tunewheel_serve_gateway.upstream.tgi import (
    NOT_SERVED,
    WHOLE_NUMBERS,
    InvalidTemplate,
    StopFilter,
    TgiUpstream,
    load_template,
)


class FakeTgi:
    """Streams the prompt's words back. ``fail_with`` is (status, body) to answer with instead."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.known: set[str] = {"desk-1"}
        self.fail_with: tuple[int, dict[str, Any]] | None = None
        self.started_on: str | None = None
        self.url = ""

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response({"model_id": self.started_on})

    async def has_no_such_route(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("authorization"))
        return web.Response(status=404)

    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.tokens.append(request.headers.get("authorization"))
        adapter = body["parameters"].get("adapter_id")
        if self.fail_with is not None:
            status, content = self.fail_with
            headers = {"location": f"{self.url}/generate_stream"} if status < 400 else {}
            return web.json_response(content, status=status, headers=headers)
        if adapter is not None and adapter not in self.known:
            error = {"error": f"adapter {adapter} not found", "error_type": "validation"}
            return web.json_response(error, status=422)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        words = ["a", " b", "<|im_end|>"]
        for index, word in enumerate(words):
            last = index == len(words) - 1
            details = {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 7, "seed": None}
            token = {"id": index, "text": word, "logprob": -0.5, "special": last}
            event: dict[str, Any] = {"index": index, "token": token, "generated_text": None, "details": None}
            if last:
                event |= {"generated_text": "a b", "details": details}
            await response.write(b"data:" + json.dumps(event).encode() + b"\n\n")
        return response


@pytest.fixture
async def tgi() -> AsyncIterator[FakeTgi]:
    fake = FakeTgi()
    app = web.Application()
    app.router.add_post("/generate_stream", fake.generate_stream)
    app.router.add_get("/info", fake.info)
    app.router.add_post("/v1/load_lora_adapter", fake.has_no_such_route)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@pytest.fixture
async def upstream(tgi: FakeTgi) -> AsyncIterator[TgiUpstream]:
    made = TgiUpstream(tgi.url, render=load_template(None), is_adapter=lambda name: "/" not in name)
    yield made
    await made.close()


def body(model: str = "desk-1", **parameters: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **parameters}


async def test_an_answer_is_put_together(tgi: FakeTgi, upstream: TgiUpstream):
    answer = await upstream.complete(body(max_tokens=5, temperature=0, stop="x", seed=3))
    assert answer["choices"][0]["message"]["content"] == "a b"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert answer["object"] == "chat.completion"
    asked = tgi.asked[0]
    assert asked["inputs"] == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    expected = {"adapter_id": "desk-1", "max_new_tokens": 5, "do_sample": False, "stop": ["x"], "seed": 3}
    assert expected.items() <= asked["parameters"].items()
    assert "temperature" not in asked["parameters"]


async def test_a_stream_ends_with_finish_and_usage(upstream: TgiUpstream):
    chunks = [chunk async for chunk in upstream.stream(body(stream=True))]
    assert [c["choices"][0]["delta"].get("content") for c in chunks] == ["a", " b", None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 10
    assert len({c["id"] for c in chunks}) == 1


async def test_a_stream_names_its_role_once(upstream: TgiUpstream):
    """OpenAI's Node client takes no stream without; its Python client puts two of them together."""
    chunks = [chunk async for chunk in upstream.stream(body())]
    roles = [choice["delta"].get("role") for chunk in chunks for choice in chunk["choices"]]
    assert roles == ["assistant", *[None] * (len(roles) - 1)]


@pytest.mark.parametrize("stop", [[], [" b"]])
async def test_log_probabilities_are_told_to_those_who_ask(upstream: TgiUpstream, stop: list[str]):
    whole = await upstream.complete(body(logprobs=True, stop=stop))
    chunks = [chunk async for chunk in upstream.stream(body(logprobs=True, stop=stop))]
    streamed = [one for chunk in chunks for one in (chunk["choices"][0]["logprobs"] or {}).get("content", ())]
    assert whole["choices"][0]["logprobs"]["content"] == streamed
    assert [(one["token"], one["logprob"]) for one in streamed] == [("a", -0.5), (" b", -0.5)]
    silent = [chunk async for chunk in upstream.stream(body())]
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in silent)
    assert (await upstream.complete(body()))["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_a_redirect_is_not_followed(tgi: FakeTgi, upstream: TgiUpstream, status: int):
    tgi.fail_with = (status, {})
    with pytest.raises(UpstreamAway, match=f"answers {status}, a redirect"):
        await upstream.complete(body())
    assert len(tgi.asked) == 1


async def test_the_base_is_asked_without_an_adapter(tgi: FakeTgi, upstream: TgiUpstream):
    await upstream.complete(body("org/Tiny-Base"))
    assert "adapter_id" not in tgi.asked[0]["parameters"]


@pytest.mark.parametrize("started_on", ["/srv/models/desk-7", "/srv/models/Tiny-Base", "org/desk-7"])
async def test_the_model_that_a_server_was_started_on_is_no_adapter(tgi: FakeTgi, started_on: str):
    tgi.started_on = started_on
    upstream = TgiUpstream(
        tgi.url, render=load_template(None), is_adapter=lambda name: name != "org/Tiny-Base"
    )
    await upstream.list_models()
    await upstream.complete(body(started_on))
    await upstream.complete(body("desk-1"))
    assert [asked["parameters"].get("adapter_id") for asked in tgi.asked] == [None, "desk-1"]
    await upstream.close()


async def test_the_machines_hugging_face_token_stays_here(
    tgi: FakeTgi, upstream: TgiUpstream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    await upstream.complete(body())
    assert "hf_secret" not in str(tgi.tokens)


async def test_an_unknown_adapter_is_told_apart(upstream: TgiUpstream):
    with pytest.raises(ModelNotLoaded):
        await upstream.complete(body("desk-9"))


async def test_a_full_server_is_429(tgi: FakeTgi, upstream: TgiUpstream):
    tgi.fail_with = (429, {"error": "Model is overloaded", "error_type": "overloaded"})
    with pytest.raises(UpstreamRefused) as caught:
        await upstream.complete(body())
    assert (caught.value.status, caught.value.retry_after) == (429, "2")


@pytest.mark.parametrize(
    ("body_of", "told"),
    [
        ({"error": "Unauthorized"}, "Unauthorized"),
        ({"error": {"message": "gateway lacks the role application"}}, "gateway lacks the role application"),
    ],
)
async def test_a_server_that_refuses_the_key_is_503_and_says_so(
    tgi: FakeTgi, upstream: TgiUpstream, body_of: dict[str, Any], told: str
):
    for status in (401, 403):
        tgi.fail_with = (status, body_of)
        with pytest.raises(KeyRefused) as caught:
            await upstream.complete(body())
        assert str(caught.value).startswith("the engine refuses the gateway's key;")
        assert str(caught.value).endswith(f"({told})")
        assert caught.value.retry_after == "2"


@pytest.mark.parametrize("kind", [None, "overloaded", "validation", "generation"])
@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_an_engine_that_repeats_the_key_does_not_bring_it_into_logs_and_answers(
    status: int, kind: str | None, tgi: FakeTgi, tmp_path: Path
):
    said = "no: authorization: Bearer k-gateway"
    tgi.fail_with = (status, {"error": said, "error_type": kind} if kind else {"error": {"message": said}})
    keyed = TgiUpstream(tgi.url, render=load_template(None), is_adapter=lambda _: True, api_key="k-gateway")
    for asked in (keyed.complete(body()), keyed.load_adapter("desk-1", tmp_path)):
        with pytest.raises(ApiError) as caught:
            await asked
        assert "k-gateway" not in f"{caught.value} {vars(caught.value)}"
    await keyed.close()


async def test_the_key_goes_with_every_call(tgi: FakeTgi, tmp_path: Path):
    keyed = TgiUpstream(tgi.url, render=load_template(None), is_adapter=lambda _: True, api_key="k-gateway")
    await keyed.complete(body())
    await keyed.load_adapter("desk-1", tmp_path)
    await keyed.close()
    assert tgi.tokens == ["Bearer k-gateway"] * 3


async def test_a_refused_parameter_is_400(tgi: FakeTgi, upstream: TgiUpstream):
    error = "`max_new_tokens` must be strictly positive"
    tgi.fail_with = (422, {"error": error, "error_type": "validation"})
    with pytest.raises(UpstreamRefused, match="strictly positive") as caught:
        await upstream.complete(body())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("top_p", []),
        ("stop", 3),
        ("stop", [3]),
        ("max_tokens", "ten"),
        ("max_tokens", 0),
        ("response_format", {"type": "json_object"}),
        ("presence_penalty", 0.5),
    ],
)
async def test_a_parameter_that_cannot_be_passed_on_is_400_and_named(
    tgi: FakeTgi, upstream: TgiUpstream, name: str, value: Any
):
    with pytest.raises(ApiError) as caught:
        await upstream.complete(body(**{name: value}))
    assert (caught.value.status, caught.value.payload()["error"]["param"]) == (400, name)
    assert not tgi.asked


@pytest.mark.parametrize("name", sorted(PASSED_ON))
async def test_whatever_the_gateway_passes_on_is_heeded_or_refused(
    tgi: FakeTgi, upstream: TgiUpstream, name: str
):
    """Nothing that would change an answer is dropped on the way."""
    values: dict[str, Any] = {
        "stop": ["x"],
        "response_format": {"type": "json_object"},
        "logit_bias": {"5": 1},
        "logprobs": True,
    }
    asked = body(**{name: values.get(name, 2 if name in WHOLE_NUMBERS else 0.5)})
    if name in NOT_SERVED:
        with pytest.raises(UpstreamRefused, match=name):
            await upstream.complete(asked)
    else:
        await upstream.complete(asked)
        new = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
        sent = (new | {"logprobs": "details"}).get(name, name)
        assert sent in tgi.asked[0]["parameters"]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
    ],
)
async def test_a_message_about_tools_is_refused_for_there_is_no_template_for_it(
    tgi: FakeTgi, upstream: TgiUpstream, message: dict[str, Any]
):
    with pytest.raises(UpstreamRefused, match="tools") as caught:
        await upstream.complete(body(messages=[{"role": "user", "content": "a"}, message]))
    assert caught.value.param == "messages[1]"
    assert not tgi.asked


async def test_parameters_that_ask_for_nothing_are_left_out(tgi: FakeTgi, upstream: TgiUpstream):
    neutral = {
        "response_format": {"type": "text"},
        "presence_penalty": 0,
        "logprobs": False,
        "logit_bias": {},
    }
    await upstream.complete(body(**neutral))
    assert not neutral.keys() & tgi.asked[0]["parameters"].keys()


async def test_a_server_that_breaks_is_502(tgi: FakeTgi, upstream: TgiUpstream):
    tgi.fail_with = (500, {"error": "boom"})
    with pytest.raises(UpstreamBroken):
        await upstream.complete(body())


async def test_a_server_that_is_away_is_503():
    upstream = TgiUpstream("http://127.0.0.1:9", render=load_template(None), is_adapter=lambda _: True)
    with pytest.raises(UpstreamAway) as caught:
        await upstream.complete(body())
    assert caught.value.retry_after == "2"


async def test_plain_tgi_loads_nothing_but_tells_what_it_has(upstream: TgiUpstream, tmp_path: Path):
    assert await upstream.list_models() is None
    await upstream.load_adapter("desk-1", tmp_path)
    with pytest.raises(ModelNotLoaded):
        await upstream.load_adapter("desk-9", tmp_path)


def test_a_models_own_template_is_used(tmp_path: Path):
    file = tmp_path / "chat_template.jinja"
    file.write_text("{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}>")
    assert load_template(file)([{"role": "user", "content": "{{ 7 * 7 }}"}], {}) == "[user]{{ 7 * 7 }}>"
    file.write_text("{{ enable_thinking }}")
    assert load_template(file)([], {"enable_thinking": False}) == "False"


def test_a_template_that_cannot_be_used_names_the_setting(tmp_path: Path):
    with pytest.raises(InvalidTemplate, match="TUNEWHEEL_ENGINE_CHAT_TEMPLATE"):
        load_template(tmp_path / "none.jinja")
    file = tmp_path / "bad.jinja"
    file.write_text("{% for %}")
    with pytest.raises(InvalidTemplate, match="TUNEWHEEL_ENGINE_CHAT_TEMPLATE"):
        load_template(file)


@given(
    text=st.text("abx", max_size=20),
    stops=st.lists(st.text("abx", min_size=1, max_size=4), max_size=3),
    data=st.data(),
)
def test_stop_strings_are_hidden_however_the_text_is_cut(text: str, stops: list[str], data: st.DataObject):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    visible = StopFilter(stops)
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    shown = "".join([*(visible.pass_on(piece) for piece in pieces), visible.pass_on("", is_last=True)])
    found = [text.find(stop) for stop in stops if stop in text]
    if not found:
        assert shown == text
    else:
        # A shorter stop string may be complete before a longer one that began earlier.
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert len(shown) >= min(found)
