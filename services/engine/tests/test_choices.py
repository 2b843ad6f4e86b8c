"""Several answers to one prompt, and what the model thought of their tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from tunewheel_basemodel.loading import load_base


@pytest.fixture
def ask(http: TestClient, tiny_base):
    def post(**change: object):
        body = {
            "model": tiny_base.name,
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 1,
            "max_tokens": 6,
            "ignore_eos": True,
            **change,
        }
        return http.post("/v1/chat/completions", json=body)

    return post


def texts(body: dict[str, Any]) -> list[str]:
    assert [choice["index"] for choice in body["choices"]] == list(range(len(body["choices"])))
    return [choice["message"]["content"] for choice in body["choices"]]


def streamed(response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_each_answer_has_the_next_seed(ask) -> None:
    body = ask(n=3, seed=5).json()
    assert texts(body) == [texts(ask(seed=5 + choice).json())[0] for choice in range(3)]
    assert len(set(texts(body))) == 3
    prompt = body["usage"]["prompt_tokens"]
    assert body["usage"] == {
        "prompt_tokens": prompt, "completion_tokens": 18, "total_tokens": prompt + 18
    }  # fmt: skip


def test_greedy_answers_are_equal(ask) -> None:
    assert texts(ask(n=3, temperature=0).json()) == texts(ask(temperature=0).json()) * 3


def test_a_prompt_is_not_read_anew_for_each_answer(ask, engine, monkeypatch: pytest.MonkeyPatch) -> None:
    (lane,) = engine.scheduler._lanes.values()
    read, lengths = lane._runner.read, list[int]()

    def counted(tokens, starts, loras, *, first=None):
        if first is not None:  # not a step
            lengths.extend(map(len, tokens))
        return read(tokens, starts, loras, first=first or 0)

    monkeypatch.setattr(lane._runner, "read", counted)
    body = ask(n=3, messages=[{"role": "user", "content": "ring " * 14}]).json()
    # All but the end of it, which is read in one piece with the others'.
    assert body["usage"]["prompt_tokens"] < sum(lengths) < 2 * body["usage"]["prompt_tokens"]


def test_streamed_answers_come_side_by_side(ask) -> None:
    whole = texts(ask(n=2, seed=1).json())
    chunks = streamed(ask(n=2, seed=1, stream=True, stream_options={"include_usage": True}))
    usage = chunks.pop()["usage"]
    said = ["", ""]
    order = []
    for chunk in chunks:
        [choice] = chunk["choices"]
        said[choice["index"]] += choice["delta"].get("content", "")
        order.append(choice["index"])
    assert said == whole
    assert order != sorted(order)
    assert usage["completion_tokens"] == 12


def test_all_answers_are_queued_or_none(ask, engine) -> None:
    room = engine.settings.max_batch + engine.settings.max_queue
    refused = ask(n=room + 1)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
    assert ask(n=room).status_code == 200
    assert not engine.scheduler._under_way


def test_log_probabilities_are_the_models_own(ask, engine, tiny_base) -> None:
    """Whatever the temperature, the biases and the grammar: those of transformers' plain forward pass."""
    format = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["yes", "no"]}}}
    model = load_base(tiny_base, dtype="float32", device="cpu")[0]
    asked = {"logprobs": True, "top_logprobs": 4, "temperature": 0.5, "max_tokens": 20}
    for change in (
        {"seed": 1},
        {"response_format": format},
        {"logit_bias": {"40": 50}, "presence_penalty": 2},
    ):
        body = ask(**asked, **change).json()
        entries = body["choices"][0]["logprobs"]["content"]
        text = body["choices"][0]["message"]["content"]
        written = b"".join(bytes(entry["bytes"]) for entry in entries)
        assert written.decode(errors="ignore").startswith(text[:5])
        prompt = engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False
        )
        known = engine.tokenizer(prompt, add_special_tokens=False).input_ids
        with torch.inference_mode():
            expected = torch.log_softmax(model(torch.tensor([known])).logits[0, -1], -1)
        best = [alternative["logprob"] for alternative in entries[0]["top_logprobs"]]
        assert best == pytest.approx(expected.topk(4).values.tolist(), abs=1e-4)
        likely = expected.topk(4).indices.tolist()
        assert [bytes(one["bytes"]) for one in entries[0]["top_logprobs"]] == [
            engine.token_bytes.of(token) for token in likely
        ]
        assert any(abs(entries[0]["logprob"] - float(value)) < 1e-4 for value in expected)


def test_streamed_log_probabilities_are_those_of_the_whole_answer(ask) -> None:
    asked = {"logprobs": True, "top_logprobs": 1, "temperature": 0}
    whole = ask(**asked).json()["choices"][0]["logprobs"]["content"]
    parts = [
        entry
        for chunk in streamed(ask(**asked, stream=True))
        for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert len(whole) == 6
    assert [part["token"] for part in parts] == [entry["token"] for entry in whole]
    assert [part["logprob"] for part in parts] == pytest.approx(
        [entry["logprob"] for entry in whole], abs=1e-4
    )


def test_plain_completions_have_their_older_shape(http: TestClient, tiny_base) -> None:
    body = {"model": tiny_base.name, "prompt": "Hello", "temperature": 0, "ignore_eos": True,
            "max_tokens": 4, "n": 2, "logprobs": 2}  # fmt: skip
    first, second = http.post("/v1/completions", json=body).json()["choices"]
    told = first["logprobs"]
    assert first["text"] == second["text"]
    assert {len(told[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")} == {4}
    assert told["text_offset"][0] == 0
    assert max(told["top_logprobs"][0].values()) == pytest.approx(told["token_logprobs"][0], abs=1e-4)


def test_penalties_and_biases_change_the_answer(ask) -> None:
    plain = texts(ask(temperature=0, max_tokens=30).json())
    for change in ({"presence_penalty": 2}, {"frequency_penalty": 2}, {"logit_bias": {"50": 100}}):
        assert texts(ask(temperature=0, max_tokens=30, **change).json()) != plain
    assert texts(ask(temperature=1, seed=1, min_p=1, max_tokens=30).json()) == plain
