"""The tokens that the console shows of a row are those that training learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from tunewheel_basemodel.digest import sha256_directory
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.tokenizer import open_tokenizer, save_tokenizer
from tunewheel_console.control.files import Tokens
from tunewheel_contracts.formats.dataset import DatasetManifest, TokenizerUse
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.data.datasets import encode_examples

TURNS = {"s": "system", "u": "user", "a": "assistant"}
ROWS = {
    "one answer": "sua", "a thread": "suaua", "general data": "uaua", "no system prompt": "ua",
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
async def test_the_tokens_that_are_shown_are_those_that_are_trained(
    kind: str, tiny_base: BaseModel, tmp_path: Path
):
    save_tokenizer(str(tiny_base.path), tmp_path / "saved")
    store = ObjectStore(f"file://{tmp_path}/store")
    sha256 = sha256_directory(tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        await store.put(f"tokenizers/{sha256}/{file.name}", file.read_bytes())
    messages = [
        {"role": TURNS[turn], "content": f"{turn} {n}: été 🙂 <b>\n{kind}"}
        for n, turn in enumerate(ROWS[kind])
    ]
    row: dict[str, Any] = {
        "example_id": "ex-1", "messages": messages, "format": "replay" if "general" in kind else "answer",
    }  # fmt: skip
    manifest = DatasetManifest.model_construct(
        dataset_id="ds-1", spec=Spec(), tokenizer=TokenizerUse(base_model="tiny", sha256=sha256)
    )
    shown = await Tokens(store).of_row(manifest, row, "train")
    (trained,), _ = encode_examples([row], open_tokenizer(tiny_base.path), max_tokens=512)
    assert shown.ids == trained.input_ids
    assert shown.learnt == tuple(map(bool, trained.mask))
    assert set(shown.learnt) == {True, False}
    text = "".join(shown.pieces)
    assert all(message["content"] in text for message in messages), "each character once"
    learnt = "".join(piece for piece, wanted in zip(shown.pieces, shown.learnt, strict=True) if wanted)
    assert messages[-1]["content"] in learnt
    assert (messages[1]["content"] in learnt) is (kind in ("general data", "no system prompt"))


class Spec:
    """A spec of which the longest example and the variables of its template are asked for."""

    class task:
        chat_template_kwargs: ClassVar[dict[str, str]] = {}

    class train:
        max_tokens = 512
