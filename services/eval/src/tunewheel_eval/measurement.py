"""What one contestant did, item by item: the rows that every figure of a scorecard is computed from.

Rows are named by the content of their item and kept as JSON Lines: one header, then rows, in any order.
A file may end in half a line (its writer was killed): that line does not count.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from tunewheel_contracts.fields import FiniteFloat, Frozen, Sha256
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.identity import content_id, content_sha256

from tunewheel_eval.bundles import files_of

METHOD = 3
"""Raised when measuring changes, so that rows of the old way are not mixed with the new."""

GREEDY = Decoding()
Of = Annotated[Sha256 | None, Field(exclude_if=operator.not_)]
"""Key of the example as its dataset has it, where the prompt had passages as well: erasures know that one."""
Shown = Annotated[tuple[str, ...], Field(exclude_if=operator.not_)]
"""The record of each passage that stood in the prompt, in order: as many as the model's context held."""


class Header(Frozen):
    row: Literal["header"] = "header"
    model_key: str
    dtype: str
    """Rows computed in another precision are measured anew rather than mixed."""
    method: int = METHOD


class HoldoutRow(Frozen):
    row: Literal["holdout"] = "holdout"
    key: Sha256
    output: str
    complete: bool
    """False: cut off at the project's max_output_tokens."""
    nll: FiniteFloat
    """Negative log-likelihood of the expert's answer, in nats, summed over ``tokens``."""
    tokens: Annotated[int, Field(gt=0)]
    of: Of = None
    shown: Shown = ()


class RegressionRow(Frozen):
    row: Literal["regression"] = "regression"
    key: Sha256
    output: str
    correct: bool
    """As it was judged when it was measured. Scoring judges ``output`` anew."""


Response = str | float | tuple[FiniteFloat, bool]
"""What a model made of one request of lm-eval: text, the log-likelihood of a text, or that of a continuation
and whether it is the greedy one."""


class LmEvalRow(Frozen):
    """A question of a task of lm-evaluation-harness."""

    row: Literal["lm_eval"] = "lm_eval"
    key: Sha256
    responses: tuple[Response, ...]
    """By request: several choices are several."""
    scores: dict[str, tuple[FiniteFloat, FiniteFloat]]
    """What lm-eval made of them by figure: a value, and the weight that it is divided by."""


class RepeatRow(Frozen):
    """Another answer to a held-out prompt, by another seed."""

    row: Literal["repeat"] = "repeat"
    key: Sha256
    output: str
    complete: bool
    of: Of = None
    shown: Shown = ()


class SkipReason(StrEnum):
    """Why a contestant could not be measured on an item."""

    TOO_LONG = "too_long"
    """It does not fit into the model's context, with its answer."""
    NO_ANSWER = "no_answer"
    """It does not end with an assistant's answer that says something."""


class SkippedRow(Frozen):
    """An item that this contestant cannot be measured on, whoever measures it."""

    row: Literal["skipped"] = "skipped"
    key: Sha256
    reason: SkipReason
    detail: str
    """The item's name, and what is wrong with the item."""


Row = HoldoutRow | RegressionRow | RepeatRow | LmEvalRow | SkippedRow
_LINE: TypeAdapter[Header | Row] = TypeAdapter(Annotated[Header | Row, Field(discriminator="row")])


class Measurement(Frozen):
    """Everything measured of one contestant."""

    header: Header
    rows: dict[str, Row] = {}

    def matches(self, header: Header) -> bool:
        return self.header == header

    def covers(self, keys: Iterable[str]) -> bool:
        return all(key in self.rows for key in keys)

    def only(self, keys: Iterable[str]) -> Measurement:
        """Return the rows of ``keys`` that are there, in that order."""
        return Measurement(header=self.header, rows={k: self.rows[k] for k in keys if k in self.rows})

    def to_lines(self) -> str:
        lines = [self.header.model_dump_json(), *(row.model_dump_json() for row in self.rows.values())]
        return "".join(f"{line}\n" for line in lines)


def read_measurement(text: str) -> Measurement | None:
    """Read JSON Lines; None without a header. What follows the first unreadable line is left out."""
    header: Header | None = None
    rows: dict[str, Row] = {}
    for line in text.split("\n"):  # not splitlines(): an output may hold U+2028
        try:
            value = _LINE.validate_json(line)
        except ValidationError:
            break
        if isinstance(value, Header):
            header = value
        else:
            rows[value.key] = value
    return Measurement(header=header, rows=rows) if header else None


def example_key(example: ChatExample, *, max_output_tokens: int) -> str:
    """Name an example by what a model is asked and measured against: equal in every dataset version."""
    messages = [[message.role, message.content] for message in example.messages]
    return content_sha256({"messages": messages, "max_output_tokens": max_output_tokens})


def model_key(
    base: BaseModelRef,
    adapter: AdapterRef | None,
    *,
    quantization: str | None,
    decoding: Decoding = GREEDY,
) -> str:
    """Name a contestant by its weights (base revision, quantisation, the adapter's files) and by how it
    writes."""
    files: Mapping[str, str] = files_of(adapter) if adapter is not None else {}
    method = adapter.method.value if adapter else None
    return content_id(
        "model",
        {
            "base": [base.name, base.revision],
            "quantization": quantization,
            "method": method,
            "files": dict(files),
        }
        | ({} if decoding == GREEDY else {"decoding": decoding.model_dump(mode="json")}),
    )
