"""Text Generation Inference's API, by Hugging Face's own client."""

from __future__ import annotations

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import ValidationError

pytestmark = [pytest.mark.e2e, pytest.mark.nightly("models"), pytest.mark.usefixtures("only_ours")]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OPEN = [{"role": "user", "content": "Describe a bicycle to a child."}]


@pytest.fixture
def prompt(reference) -> str:
    from tunewheel_basemodel.chat import render

    return render(reference[1], QUESTION, True)


@pytest.fixture
def open_prompt(reference) -> str:
    from tunewheel_basemodel.chat import render

    return render(reference[1], OPEN, True)


@pytest.fixture
async def tgi(engine):
    async with AsyncInferenceClient(engine.url, token="none", timeout=300) as client:
        yield client


async def test_the_greedy_answer_is_that_of_transformers(tgi, prompt: str, expected) -> None:
    answer = await tgi.text_generation(prompt, max_new_tokens=24, details=True)
    assert answer.generated_text == expected["question"]
    assert answer.details.finish_reason == "eos_token"
    assert answer.details.generated_tokens == len(answer.details.tokens)
    assert answer.details.tokens[-1].special
    assert "".join(token.text for token in answer.details.tokens) == expected["question"]
    assert all(token.logprob <= 0 for token in answer.details.tokens)


async def test_an_adapter_is_named_by_its_id(tgi, open_prompt: str, tuned, expected) -> None:
    for name in tuned:
        assert await tgi.text_generation(open_prompt, max_new_tokens=24, adapter_id=name) == expected[name]


async def test_a_stream_ends_with_the_whole_text(engine, prompt: str, expected) -> None:
    for path in ("", "/generate_stream"):
        async with AsyncInferenceClient(engine.url + path, token="none", timeout=300) as client:
            stream = await client.text_generation(prompt, max_new_tokens=24, details=True, stream=True)
            steps = [step async for step in stream]
        assert "".join(step.token.text for step in steps if not step.token.special) == expected["question"]
        assert [step.generated_text for step in steps[:-1]] == [None] * (len(steps) - 1)
        assert steps[-1].generated_text == expected["question"]
        assert steps[-1].details.generated_tokens == len(steps)
        assert steps[-1].details.finish_reason == "eos_token"


async def test_a_stop_sequence_is_part_of_the_text(tgi, prompt: str, expected) -> None:
    answer = await tgi.text_generation(prompt, max_new_tokens=24, stop=["capital"], details=True)
    assert (
        answer.generated_text
        == expected["question"][: expected["question"].index("capital") + len("capital")]
    )
    assert answer.details.finish_reason == "stop_sequence"


async def test_length_seed_and_full_text(tgi, prompt: str) -> None:
    answer = await tgi.text_generation(prompt, max_new_tokens=3, details=True, return_full_text=True)
    assert answer.details.finish_reason == "length"
    assert answer.details.generated_tokens == 3
    assert answer.generated_text.startswith(prompt)
    drawn = [await tgi.text_generation(prompt, max_new_tokens=8, do_sample=True, seed=5) for _ in range(2)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"adapter_id": "nobody"}, "adapter_id"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 10**6}, "max_new_tokens"),
        ({"temperature": 0}, "temperature"),
        ({"grammar": {"type": "json", "value": {"type": "colour"}}}, "grammar"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_parameter_is_named(http: httpx.AsyncClient, parameters: dict, named: str) -> None:
    answer = await http.post("/generate", json={"inputs": "Hello", "parameters": parameters})
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "validation"
    assert named in answer.json()["error"]


async def test_the_client_knows_a_validation_error(tgi, prompt: str) -> None:
    with pytest.raises(ValidationError, match="nobody"):
        await tgi.text_generation(prompt, adapter_id="nobody")


async def test_info(http: httpx.AsyncClient, engine) -> None:
    info = (await http.get("/info")).json()
    assert info["model_id"] == engine.model
    assert info["model_sha"].startswith("sha256:")
