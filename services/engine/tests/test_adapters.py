"""Which directories may become an adapter, and on which form of the base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_engine.adapters import AdapterShelf
from tunewheel_engine.errors import AdapterRefused, ModelNotFound
from tunewheel_generation.generation import BaseForm


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, ...]:
    roots = (tmp_path / "one", tmp_path / "two")
    for root in roots:
        (root / "tuned").mkdir(parents=True)
    (tmp_path / "one-more" / "tuned").mkdir(parents=True)
    return roots


@pytest.fixture
def shelf(tiny_base, roots) -> AdapterShelf:
    return AdapterShelf(tiny_base, roots, lambda path, form: (form, path))


def note(directory: Path, **fields: object) -> None:
    (directory / "tunewheel.json").write_text(json.dumps(fields))


def test_a_relative_path_is_below_a_root(shelf: AdapterShelf, roots) -> None:
    assert shelf.load("a", "tuned").path == roots[0] / "tuned"
    assert shelf.load("b", str(roots[1] / "tuned")).path == roots[1] / "tuned"
    assert [adapter.name for adapter in shelf.names()] == ["a", "b"]


@pytest.mark.parametrize(
    "path", ["..", "../one-more/tuned", "/", "/etc", "tuned/../../one-more/tuned", "a\0"]
)
def test_a_path_outside_is_refused(shelf: AdapterShelf, path: str) -> None:
    with pytest.raises(AdapterRefused, match="not below an allowed directory"):
        shelf.load("a", path)
    assert shelf.names() == []


def test_the_name_of_a_root_is_no_prefix(shelf: AdapterShelf, roots) -> None:
    with pytest.raises(AdapterRefused, match="not below"):
        shelf.load("a", str(roots[0]) + "-more/tuned")


def test_a_link_out_is_refused(shelf: AdapterShelf, roots, tmp_path: Path) -> None:
    (roots[0] / "link").symlink_to(tmp_path / "one-more")
    with pytest.raises(AdapterRefused, match="not below"):
        shelf.load("a", str(roots[0] / "link" / "tuned"))


def test_a_missing_directory_is_not_found(shelf: AdapterShelf) -> None:
    with pytest.raises(ModelNotFound, match="nothing-here"):
        shelf.load("a", "nothing-here")


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({}, BaseForm()),
        ({"quantization": None, "dtype": "bfloat16"}, BaseForm()),
        ({"quantization": "nf4", "dtype": "bfloat16"}, BaseForm("nf4", "bfloat16")),
        ({"quantization": "nf4"}, BaseForm("nf4", "float32")),
    ],
)
def test_the_note_says_the_form(shelf: AdapterShelf, roots, tiny_base, fields, form) -> None:
    note(roots[0] / "tuned", base_model=tiny_base.name, base_revision=tiny_base.revision, **fields)
    assert shelf.load("a", "tuned").form == form


@pytest.mark.parametrize(
    "fields",
    [
        {"base_model": "other/model"},
        {"base_revision": "sha256:0"},
        {"quantization": "gptq"},
        {"quantization": "nf4", "dtype": "float16"},
    ],
)
def test_another_base_or_form_is_refused(shelf: AdapterShelf, roots, fields) -> None:
    note(roots[0] / "tuned", **fields)
    with pytest.raises(AdapterRefused) as caught:
        shelf.load("a", "tuned")
    assert str(next(reversed(fields.values()))) in caught.value.message


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_note_is_refused(shelf: AdapterShelf, roots, text: str) -> None:
    (roots[0] / "tuned" / "tunewheel.json").write_text(text)
    with pytest.raises(AdapterRefused, match=r"tunewheel.json"):
        shelf.load("a", "tuned")


def test_finding(shelf: AdapterShelf, tiny_base) -> None:
    assert shelf.find(tiny_base.name) is None
    adapter = shelf.load("a", "tuned")
    assert shelf.find("a") is adapter
    shelf.unload("a")
    for call in (shelf.find, shelf.unload):
        with pytest.raises(ModelNotFound):
            call("a")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "x" * 201, "a\0"])
def test_a_wrong_name_is_refused(shelf: AdapterShelf, name: str) -> None:
    with pytest.raises(AdapterRefused) as caught:
        shelf.load(name, "tuned")
    assert caught.value.param == "lora_name"


def test_a_refused_adapter_leaves_the_name_free(tiny_base, roots) -> None:
    from tunewheel_basemodel.errors import InvalidAdapter

    answers = iter([InvalidAdapter("broken"), None])

    def read(path: Path, form: BaseForm):
        if error := next(answers):
            raise error
        return form, "weights"

    shelf = AdapterShelf(tiny_base, roots, read)
    with pytest.raises(AdapterRefused, match="broken"):
        shelf.load("a", "tuned")
    assert shelf.load("a", "tuned").weights == "weights"
