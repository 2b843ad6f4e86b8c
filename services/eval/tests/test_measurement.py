from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_eval.measurement import (
    Header,
    HoldoutRow,
    Measurement,
    RegressionRow,
    RowFile,
    example_key,
    model_key,
    read_existing,
    read_measurement,
)
from tunewheel_testing.adapters import BASE, adapter_of

HEADER = Header(model_key="model-1", dtype="float32")


def holdout(letter: str, output: str = "o") -> HoldoutRow:
    return HoldoutRow(key=letter * 64, output=output, complete=True, nll=1.5, tokens=3)


def regression(letter: str) -> RegressionRow:
    return RegressionRow(key=letter * 64, output="o", correct=True)


def test_lines_come_back_as_they_were() -> None:
    rows = {row.key: row for row in (holdout("a", "line\nline \u2028 \U0001f6b2"), regression("b"))}
    measurement = Measurement(header=HEADER, rows=rows)
    assert read_measurement(measurement.to_lines()) == measurement


def test_half_a_line_does_not_count() -> None:
    text = Measurement(header=HEADER, rows={"a" * 64: holdout("a"), "b" * 64: regression("b")}).to_lines()
    found = read_measurement(text[:-20])
    assert found is not None
    assert list(found.rows) == ["a" * 64]
    assert read_measurement(text[:10]) is None
    assert read_measurement("") is None


@pytest.mark.parametrize("nll", [float("nan"), float("inf")])
def test_a_row_holds_only_numbers_that_json_can_hold(nll: float) -> None:
    with pytest.raises(ValidationError):
        HoldoutRow(key="a" * 64, output="o", complete=True, nll=nll, tokens=3)


def test_row_file_is_taken_up_where_a_killed_writer_left_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = RowFile(path, HEADER)
    first.add([holdout("a"), holdout("b")])
    with path.open("a") as file:
        file.write('{"row": "holdout", "key": "ccc')
    second = RowFile(path, HEADER)
    assert second.holds(["a" * 64, "b" * 64])
    assert not second.holds(["c" * 64])
    second.add([holdout("c")])
    found = read_existing(path, HEADER)
    assert found is not None
    assert list(found.rows) == ["a" * 64, "b" * 64, "c" * 64]


@pytest.mark.parametrize("other", [{"dtype": "bfloat16"}, {"model_key": "model-2"}, {"method": 0}])
def test_rows_of_another_model_or_precision_are_not_mixed_in(tmp_path: Path, other: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    RowFile(path, HEADER.model_copy(update=other)).add([holdout("a")])
    assert read_existing(path, HEADER) is None
    assert RowFile(path, HEADER).rows == {}


def test_example_key_follows_what_is_asked(examples: tuple[ChatExample, ...]) -> None:
    one, other = examples[0], examples[1]
    key = example_key(one, max_output_tokens=8)
    renamed = one.model_copy(update={"example_id": "elsewhere", "record_ids": ()})
    assert example_key(renamed, max_output_tokens=8) == key
    assert key not in (example_key(one, max_output_tokens=9), example_key(other, max_output_tokens=8))


def test_model_key_follows_the_weights_not_the_names() -> None:
    base = BASE

    def adapter(model_id: str, sha: str, **changes: Any) -> AdapterRef:
        plain = adapter_of(model_id, **changes)
        files = tuple(file.model_copy(update={"sha256": sha * 64}) for file in plain.files)
        return plain.model_copy(update={"files": files})

    key = model_key(base, adapter("m1", "a"), quantization=None)
    assert model_key(base, adapter("m2", "a"), quantization=None) == key
    others = {
        model_key(base, adapter("m1", "b"), quantization=None),
        model_key(base, adapter("m1", "a"), quantization="nf4"),
        model_key(base.model_copy(update={"revision": "s"}), adapter("m1", "a"), quantization=None),
        model_key(base, adapter("m1", "a", method="full"), quantization=None),
        model_key(base, None, quantization=None),
        model_key(base, None, quantization="nf4"),
        model_key(base, adapter("m1", "a"), quantization=None, constraint={"type": "object"}),
    }
    assert len(others) == 7
    assert key not in others
