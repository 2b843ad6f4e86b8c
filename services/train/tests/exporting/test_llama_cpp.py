"""A GGUF file answers as what was trained, in transformers and in llama.cpp, family by family."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tunewheel_basemodel.chat import render
from tunewheel_basemodel.gguf_metadata import read_metadata
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_testing.families import FAMILIES, write_family
from tunewheel_testing.llama_cpp import llama_cpp_folder, llama_cpp_program, llama_server
from tunewheel_testing.tiny import write_random_adapter
from tunewheel_train.data.datasets import encode_examples
from tunewheel_train.errors import NotEqual
from tunewheel_train.exporting import merging
from tunewheel_train.exporting.gguf import Encoding, find_programs
from tunewheel_train.exporting.merging import (
    GGUF_TOLERANCE,
    Form,
    Parity,
    Trained,
    export_merged,
    log_probabilities,
)
from tunewheel_train.model.modeling import load_tokenizer

pytestmark = pytest.mark.nightly("gguf")
IN_LLAMA_CPP: dict[str, float] = {"float16": 0.01, "q4_k_m": 1.0}
"""The largest allowed mean difference of log-probabilities: llama.cpp computes fp16 and 4-bit weights with
activations of fewer bits than fp32."""
EACH = [(family, encoding) for family in FAMILIES for encoding in IN_LLAMA_CPP]
ANSWER_TOKENS = 12
_HEADED = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>{{ m['content'] }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
)
_INSTRUCTED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}</s>"
    "{% else %}[INST]{{ m['content'] }}[/INST]{% endif %}{% endfor %}"
)
OF_TOKENS = {
    **FAMILIES,
    "mistral, whose tokenizer writes a BOS token": replace(FAMILIES["mistral"], begins=True),
    "gemma2, whose tokenizer writes none": replace(FAMILIES["gemma2"], begins=False),
    "mistral with a template that writes none": replace(
        FAMILIES["mistral"], begins=True, template=_INSTRUCTED
    ),
    "llama with a template that writes none": replace(FAMILIES["llama"], template=_HEADED),
}
"""Whether prompts of the training begin with a BOS token depends on the template alone."""


@dataclass(frozen=True)
class Exported:
    trained: Trained
    directory: Path
    parity: Parity

    @property
    def file(self) -> Path:
        return self.directory / "model.gguf"


@pytest.fixture(scope="module")
def llama_cpp() -> Path:
    folder = llama_cpp_folder()
    if folder is None:
        pytest.skip("llama.cpp is not here: run make llama-cpp, or name its folder in TUNEWHEEL_LLAMA_CPP")
    return folder


@pytest.fixture(scope="module")
def server(llama_cpp: Path) -> str:
    program = llama_cpp_program(llama_cpp, "llama-server")
    if program is None:
        pytest.skip(f"llama-server is not built in {llama_cpp}")
    return program


@pytest.fixture(scope="module")
def tuned(llama_cpp: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return a small model of a family, with a random adapter on all linear layers."""

    @functools.cache
    def of(family: str) -> Trained:
        folder = tmp_path_factory.mktemp(family)
        path = write_family(OF_TOKENS[family], llama_cpp, folder)
        base = locate_base_model(str(path), cache_dir=path)
        adapter = tmp_path_factory.mktemp(f"{family}-adapter")
        write_random_adapter(base, adapter, seed=1, std=0.05, target_modules="all-linear")
        return Trained("desk", base, adapter)

    return of


@pytest.fixture(scope="module")
def written(
    llama_cpp: Path, tuned, smollm2: BaseModel, conversation_of, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Encoding], Exported]:
    @functools.cache
    def of(family: str, encoding: Encoding) -> Exported:
        whole = Trained(family, smollm2, smollm2.path, whole=True)
        trained = whole if family == "smollm2" else tuned(family)
        directory = tmp_path_factory.mktemp(f"{family}-{encoding}") / "out"
        form = Form(gguf=encoding, programs=find_programs(llama_cpp, encoding), system="Answer in JSON.")
        system = family == "smollm2" or OF_TOKENS[family].system
        prompts = prompts_of(trained, conversation_of, system=system)
        return Exported(trained, directory, export_merged(trained, directory, prompts=prompts, form=form))

    return of


def prompts_of(trained: Trained, conversation_of, *, system: bool) -> list[tuple[int, ...]]:
    """Return the prompts of 20 examples in the tokens of a model."""
    rows = [conversation_of(number) for number in range(20)]
    for row in rows:
        row["messages"] = row["messages"][0 if system else 1 :]
    return [one.input_ids for one in encode_examples(rows, load_tokenizer(trained.base), max_tokens=256)[0]]


def conversations(family: str) -> list[list[dict[str, str]]]:
    """Return a question alone, with a system message, after another turn, and after both."""
    system = [{"role": "system", "content": "You are the help desk. Answer with JSON."}]
    turn = [
        {"role": "user", "content": "My charger shows a red light.\nWhat is it? 🔋"},
        {"role": "assistant", "content": '{"category": "battery"}'},
    ]
    question = [{"role": "user", "content": "And where is the invoice of order 3071?"}]
    heads = [[], system] if OF_TOKENS[family].system else [[]]
    return [[*head, *turns, *question] for head in heads for turns in ([], turn)]


@pytest.mark.parametrize(
    ("family", "encoding"), [*[("smollm2", one) for one in ("float16", "q8_0", "q4_k_m")], *EACH]
)
def test_a_file_answers_as_the_model(written, record_property, family: str, encoding: Encoding):
    exported = written(family, encoding)
    record_property("parity", str(exported.parity))
    assert exported.parity.prompts == 20
    assert exported.parity.mean_difference <= GGUF_TOLERANCE[encoding]
    assert {path.name for path in exported.directory.iterdir()} == {"model.gguf", "Modelfile"}
    told = read_metadata(exported.file)
    assert told["general.architecture"] == (FAMILIES[family].architecture if family in FAMILIES else "llama")
    assert told["general.file_type"] == {"float16": 1, "q8_0": 7, "q4_k_m": 15}[encoding]


@pytest.mark.parametrize(("family", "encoding"), EACH)
def test_llama_cpp_answers_as_the_trained_model(
    written, server: str, tmp_path: Path, record_property, family, encoding
):
    exported = written(family, encoding)
    model, tokenizer = merging._loaded(exported.trained, "float32")
    differences: list[torch.Tensor] = []
    with llama_server(server, exported.file, tmp_path / "server.log") as client:
        for messages in conversations(family):
            prompt = tokenizer(render(tokenizer, messages, True), add_special_tokens=False).input_ids
            given = client.post("/completion", json={
                "prompt": prompt, "n_predict": ANSWER_TOKENS, "temperature": 0, "n_probs": 20,
                "return_tokens": True, "ignore_eos": False,
            }).raise_for_status().json()  # fmt: skip
            answer, at = given["tokens"], 0
            wanted = log_probabilities(model, [*prompt, *answer])[len(prompt) - 1 :]
            for step in given["completion_probabilities"]:
                # the server tells no probabilities of a token that ends within a character
                at = answer.index(step["id"], at)
                top = step["top_logprobs"]
                found = torch.tensor([one["logprob"] for one in top])
                differences.append((wanted[at][[one["id"] for one in top]] - found).abs())
                assert step["id"] == top[0]["id"]  # greedy
                if encoding == "float16":
                    assert wanted[at].max() - wanted[at][step["id"]] <= 5 * IN_LLAMA_CPP[encoding]
                at += 1
    flat = torch.cat(differences)
    record_property("mean_difference", float(flat.mean()))
    assert len(flat) >= 20 * 4 * len(conversations(family))
    assert flat.mean() <= IN_LLAMA_CPP[encoding]


@pytest.mark.parametrize("family", OF_TOKENS)
def test_engines_read_the_prompts_that_were_trained(
    written, server: str, tmp_path: Path, in_ollama, family: str
):
    """In tokens, with exactly one BOS token where the training has one."""
    exported, asked = written(family, "float16"), conversations(family)
    tokenizer: Any = load_tokenizer(exported.trained.base)
    trained = [
        tokenizer(render(tokenizer, messages, True), add_special_tokens=False).input_ids for messages in asked
    ]
    read = in_ollama((exported.directory / "Modelfile").read_text("utf-8"), asked)
    with llama_server(server, exported.file, tmp_path / "server.log") as client:

        def post(path: str, **body: object) -> dict[str, Any]:
            return client.post(path, json=body).raise_for_status().json()

        def tokens(text: str) -> list[int]:
            """Both engines tokenize so what their template gave."""
            return post("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]

        for messages, ids, text in zip(asked, trained, read.rendered, strict=True):
            assert tokens(post("/apply-template", messages=messages)["prompt"]) == ids
            answer = post("/v1/chat/completions", messages=messages, max_tokens=1)
            assert answer["usage"]["prompt_tokens"] == len(ids)
            assert tokens(text) == ids
            assert ids.count(tokenizer.bos_token_id) == ("bos_token" in tokenizer.chat_template)
    assert read.commands["stop"] == OF_TOKENS[family].end
    assert read.commands.get("system") == ("Answer in JSON." if OF_TOKENS[family].system else None)


def test_a_file_that_answers_otherwise_is_refused(
    llama_cpp: Path, tuned, conversation_of, tmp_path: Path, spoilt_merge
):
    trained = tuned("mistral")
    prompts = prompts_of(trained, conversation_of, system=True)
    form = Form(gguf="float16", programs=find_programs(llama_cpp, "float16"))
    with pytest.raises(NotEqual, match=r"differ from the adapter's by \d"):
        export_merged(trained, tmp_path / "out", prompts=prompts, form=form)
    assert list(tmp_path.iterdir()) == []
