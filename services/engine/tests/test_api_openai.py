"""The HTTP surface on a tiny model: what is right works, what is wrong is named."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient
from tunewheel_engine.main import make_health_app

CHAT = {
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 0,
    "max_tokens": 6,
    "ignore_eos": True,
}

JSON = {"content-type": "application/json"}


@pytest.fixture
def chat(http: TestClient, tiny_base):
    def post(**change: object):
        body = {"model": tiny_base.name, **CHAT, **change}
        return http.post("/v1/chat/completions", json={k: v for k, v in body.items() if v is not ...})

    return post


def refusal(response) -> dict[str, object]:
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_a_chat(chat, tiny_base) -> None:
    answer = chat().json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == tiny_base.name
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 6


def test_content_parts_are_joined(chat) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    parted = chat(messages=[{"role": "user", "content": parts}]).json()
    assert parted["choices"] == chat().json()["choices"]


def test_a_stream(chat) -> None:
    whole = chat().json()["choices"][0]["message"]["content"]
    response = chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole
    assert all("usage" not in chunk for chunk in chunks)


def test_log_probabilities_change_neither_the_text_nor_the_chunks_of_a_stream(chat) -> None:
    def chunks(**change: object) -> list[object]:
        events = chat(stream=True, max_tokens=40, **change).text.split("\n\n")[:-2]
        choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
        return [{name: value for name, value in one.items() if name != "logprobs"} for one in choices]

    assert chunks(logprobs=True) == chunks()
    assert chunks(logprobs=True, stop=["zz", "e"]) == chunks(stop=["zz", "e"])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10_000}, "max_tokens"),
        ({"max_completion_tokens": 10_000}, "max_completion_tokens"),
        ({"stop": 3}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x", 3]}, "stop[1]"),
        ({"seed": 1.5}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": ...}, "messages"),
        ({"messages": [{"role": "clerk", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x" * 4000}]}, "messages"),
        ({"model": ...}, "model"),
        ({"n": 9}, "n"),
        ({"n": 6}, "n"),  # the batch and the queue hold 5
        ({"best_of": 2}, "best_of"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"min_p": 1.5}, "min_p"),
        ({"logit_bias": {"3": 101}}, "logit_bias"),
        ({"logit_bias": {"9999": 1}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"no_such": 1}, "no_such"),
        ({"stream_options": {"include_usage": "perhaps"}}, "stream_options.include_usage"),
    ],
)
def test_an_error_names_the_invalid_field(chat, change: dict[str, object], param: str) -> None:
    error = refusal(chat(**change))
    assert error["param"] == param
    assert (
        param.split(".")[0].split("[")[0] in str(error["message"])
        or error["code"] == "context_length_exceeded"
    )
    assert chat().status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1, "presence_penalty": 0, "logit_bias": {}, "tools": [], "response_format": {"type": "text"}},
        {"user": "u", "metadata": {"a": "b"}, "store": False, "logprobs": None, "stop": None, "seed": None},
        {"top_k": -1, "top_p": 1, "stop": ["", "never said"]},
    ],
)
def test_parameters_without_effect_are_accepted(chat, change: dict[str, object]) -> None:
    assert chat(**change).json()["choices"] == chat().json()["choices"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[]", b"3", b"", b"[" * 100_000])
def test_a_body_that_is_no_json_object(http: TestClient, body: bytes) -> None:
    for path in (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
    ):
        assert refusal(http.post(path, content=body, headers=JSON))["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("headers", "status", "param"),
    [
        ({"content-type": "text/plain"}, 415, "Content-Type"),
        ({"content-type": "text/plain", "origin": "https://evil.example"}, 403, "Origin"),
        ({"content-type": "application/json", "origin": "https://evil.example"}, 403, "Origin"),
        ({"content-type": "application/json", "host": "evil.example"}, 421, "Host"),
    ],
)
def test_no_website_loads_or_unloads_an_adapter(
    http: TestClient, write_adapter, headers: dict[str, str], status: int, param: str
) -> None:
    path = write_adapter("a", seed=1)
    body = json.dumps({"lora_name": "a", "lora_path": str(path)}).encode()
    for url in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/chat/completions", "/generate"):
        answer = http.post(url, content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert len(http.get("/v1/models").json()["data"]) == 1, "the base alone"


def test_a_body_over_the_limit(http: TestClient) -> None:
    response = http.post("/v1/chat/completions", content=b" " * (5 << 20), headers=JSON)
    assert response.status_code == 413
    assert "TUNEWHEEL_MAX_BODY_BYTES" in response.json()["error"]["message"]


def test_an_unknown_model(chat) -> None:
    response = chat(model="nobody")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert response.json()["error"]["param"] == "model"


def test_an_unknown_route_and_method(http: TestClient) -> None:
    assert http.get("/v1/nothing").status_code == 404
    response = http.get("/v1/chat/completions")
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "no_such_route"


@pytest.mark.parametrize("prompt", ["Hello there", ["Hello there"], [5, 9, 33]])
def test_a_plain_completion(http: TestClient, tiny_base, prompt: object) -> None:
    body = {"model": tiny_base.name, "prompt": prompt, "temperature": 0, "ignore_eos": True}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion"
    assert answer["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("prompt", ["", [], ["a", "b"], [5, -1], [10**6], 3, None])
def test_a_wrong_prompt(http: TestClient, tiny_base, prompt: object) -> None:
    error = refusal(http.post("/v1/completions", json={"model": tiny_base.name, "prompt": prompt}))
    assert str(error["param"]).startswith("prompt")


def test_repeating_can_be_made_dear(chat) -> None:
    def text(**asked: object) -> str:
        return chat(max_tokens=30, **asked).json()["choices"][0]["message"]["content"]

    assert text(repetition_penalty=1) == text() != text(repetition_penalty=1.9)
    assert refusal(chat(repetition_penalty=0))["param"] == "repetition_penalty"


def test_adapters_come_and_go(http: TestClient, chat, write_adapter, tiny_base) -> None:
    path = write_adapter("tuned", seed=1)
    loaded = http.post("/v1/load_lora_adapter", json={"lora_name": "tuned-1", "lora_path": "tuned"})
    assert loaded.status_code == 200, loaded.text
    listed = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
    assert listed["tuned-1"]["root"] == str(path)
    assert listed["tuned-1"]["parent"] == tiny_base.name
    base = listed[tiny_base.name]
    assert (base["max_model_len"], base["revision"], base["dtype"]) == (128, tiny_base.revision, "float32")
    assert base["max_whole_models"] == 4, "by it the gateway knows that whole models can be loaded"
    assert chat(model="tuned-1").json()["choices"] != chat().json()["choices"]
    again = http.post("/v1/load_lora_adapter", json={"lora_name": "tuned-1", "lora_path": "tuned"})
    assert refusal(again)["param"] == "lora_name"
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "tuned-1"}).status_code == 200
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "tuned-1"}).status_code == 404
    assert chat(model="tuned-1").status_code == 404


def test_metrics_and_health(http: TestClient, engine, chat, tiny_base) -> None:
    told = TestClient(make_health_app(engine), base_url="http://127.0.0.1:9110")
    chat()
    chat(temperature=9)
    text = told.get("/metrics").text
    label = f'service="engine",model_name="{tiny_base.name}"'
    assert f"\nvllm:generation_tokens_total{{{label}}} 6\n" in text
    assert f'\nvllm:request_success_total{{{label},finished_reason="length"}} 1\n' in text
    assert f"\nvllm:time_to_first_token_seconds_count{{{label}}} 1\n" in text
    assert '\ntunewheel_engine_refused_total{service="engine",status="400"} 1\n' in text
    assert '\nvllm:num_requests_running{service="engine"} 0' in text
    assert 'service_name="tunewheel-engine"' in text
    for path in ("/health", "/health/ready", "/health/live"):
        assert told.get(path).status_code == 200


def test_the_chat_template_gets_the_variables_of_the_request(chat, engine) -> None:
    template = engine.tokenizer.chat_template
    engine.tokenizer.chat_template = template + "{% if longer %}{{ longer }}{% endif %}"
    try:
        usual, longer = (
            chat(chat_template_kwargs=given).json()["usage"]["prompt_tokens"]
            for given in ({}, {"longer": "aaa"})
        )
    finally:
        engine.tokenizer.chat_template = template
    assert longer == usual + len(engine.tokenizer("aaa").input_ids)
    assert refusal(chat(chat_template_kwargs={"messages": "x"}))["param"].startswith("chat_template_kwargs")
