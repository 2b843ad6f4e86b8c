"""What is known of a base model comes from its own files, and nothing of it is run."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_basemodel.facts import facts_of
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_contracts.formats.run import BaseModelFacts
from tunewheel_testing.tiny import CHATML

TEMPLATE = sha256(CHATML.encode()).hexdigest()


@pytest.fixture
def copy(tiny_base: BaseModel, tmp_path: Path) -> BaseModel:
    path = shutil.copytree(tiny_base.path, tmp_path / "model")
    return locate_base_model(str(path), cache_dir=tmp_path)


def card(metadata: str) -> str:
    return f"---\n{metadata}\n---\n# Tiny\n"


def test_a_local_model_tells_what_its_files_say(copy: BaseModel, tiny_model) -> None:
    (copy.path / "README.md").write_text(card("license: apache-2.0"))
    assert facts_of(copy) == BaseModelFacts(
        license="apache-2.0",
        chat_template_sha256=TEMPLATE,
        context_length=512,
        parameters=sum(parameter.numel() for parameter in tiny_model.parameters()),
    )


def test_a_card_is_no_part_of_the_revision(copy: BaseModel, tmp_path: Path) -> None:
    (copy.path / "README.md").write_text(card("license: mit"))
    assert locate_base_model(str(copy.path), cache_dir=tmp_path).revision == copy.revision


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (card("license: other\nlicense_name: llama3.2"), "llama3.2"),
        (card("license: other"), "other"),
        (card("language: en"), None),
        (card("license: [unclosed"), None),
        (card("license: {nested: 1}"), None),
        ("# no metadata", None),
        (None, None),
    ],
)
def test_the_licence_is_the_cards_or_unknown(copy: BaseModel, text: str | None, found: str | None) -> None:
    if text is not None:
        (copy.path / "README.md").write_text(text)
    assert facts_of(copy).license == found


def test_the_template_is_found_wherever_transformers_keeps_it(copy: BaseModel) -> None:
    (copy.path / "chat_template.jinja").unlink()
    assert facts_of(copy).chat_template_sha256 is None
    config = copy.path / "tokenizer_config.json"
    told = json.loads(config.read_text())
    for template in (
        CHATML,
        [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}],
    ):
        config.write_text(json.dumps(told | {"chat_template": template}))
        assert facts_of(copy).chat_template_sha256 == TEMPLATE


def test_facts_that_cannot_be_read_are_unknown(copy: BaseModel) -> None:
    (copy.path / "config.json").write_text("{")
    (copy.path / "model.safetensors").write_bytes(b"no tensors")
    found = facts_of(copy)
    assert (found.context_length, found.parameters) == (None, None)


def test_code_that_a_model_brings_is_never_run(copy: BaseModel, tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    (copy.path / "modeling_own.py").write_text(
        f"open({str(trace)!r}, 'w')\nclass Model: pass\nclass Config: pass\n"
    )
    config = json.loads((copy.path / "config.json").read_text())
    own = {"AutoModelForCausalLM": "modeling_own.Model", "AutoConfig": "modeling_own.Config"}
    (copy.path / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": own}))
    base = locate_base_model(str(copy.path), cache_dir=tmp_path)
    facts_of(base)
    with pytest.raises(BaseModelNotFound, match="without remote code"):
        load_base(base, dtype="float32", device="cpu")
    assert not trace.exists()


@pytest.mark.model
def test_a_carried_model_tells_what_its_gguf_file_says(smollm2: BaseModel) -> None:
    found = facts_of(smollm2)
    assert found.license == "apache-2.0"
    assert found.context_length == 8192
    assert found.parameters == 134_515_008
    assert found.chat_template_sha256 is not None
