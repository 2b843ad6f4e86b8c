"""A measurement of one contestant, item by item. Every figure of a scorecard is computed from these rows.

The key of a row follows from the content of its item. Rows are stored as JSON Lines: a header, then rows in
any order. If the writer was killed, the file may end in half a line, which is ignored.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from tunewheel_contracts.fields import FiniteFloat, Fraction, Frozen, JsonObject, Sha256
from tunewheel_contracts.formats.bundle import ChatTemplateKwargs, Decoding
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.fingerprint import PROMPTS, NextTokens
from tunewheel_contracts.formats.generations import Shown
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.identity import content_id, content_sha256
from tunewheel_runtime.files import replace_file

from tunewheel_eval.bundles import files_of

METHOD = 3
"""Increase this when measuring changes, so that old and new rows are not mixed."""

GREEDY = Decoding()
Of = Annotated[Sha256 | None, Field(exclude_if=operator.not_)]
"""The key of the example in its dataset, if the prompt had passages too. Erasures find rows by this key."""


class Header(Frozen):
    row: Literal["header"] = "header"
    model_key: str
    dtype: str
    """The precision of the computation. Rows in another precision are measured again, not mixed."""
    method: int = METHOD
    cut: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Whether answers ended early (``ContestantJob.cut_at``)."""


class HoldoutRow(Frozen):
    row: Literal["holdout"] = "holdout"
    key: Sha256
    output: str
    complete: bool
    """False: cut off at the project's max_output_tokens, or ``cut``."""
    cut: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """True: it ended early, because its beginning matches the job's ``cut_at``."""
    nll: FiniteFloat
    """Negative log-likelihood of the expert's answer, in nats, summed over ``tokens``."""
    tokens: Annotated[int, Field(gt=0)]
    sure: Annotated[Fraction | None, Field(exclude_if=lambda share: share is None)] = None
    """The model's probability of its own label; 0: the answer has no label. None: not measured."""
    of: Of = None
    shown: Shown = ()


class RegressionRow(Frozen):
    row: Literal["regression"] = "regression"
    key: Sha256
    output: str
    correct: bool
    """Whether it was right when it was measured. Scoring judges ``output`` again."""


Response = str | float | tuple[FiniteFloat, bool]
"""A model's response to one request of lm-eval: text; or the log-likelihood of a text; or the log-likelihood
of a continuation, and whether it is the greedy one."""


class LmEvalRow(Frozen):
    """A question of a task of lm-evaluation-harness."""

    row: Literal["lm_eval"] = "lm_eval"
    key: Sha256
    responses: tuple[Response, ...]
    """The responses by request. A question with several choices has several requests."""
    scores: dict[str, tuple[FiniteFloat, FiniteFloat]]
    """lm-eval's scores by metric: a value, and the weight by which it is divided."""


class RepeatRow(Frozen):
    """Another answer to a held-out prompt, with another seed."""

    row: Literal["repeat"] = "repeat"
    key: Sha256
    output: str
    complete: bool
    of: Of = None
    shown: Shown = ()


class FingerprintRow(Frozen):
    """The likeliest first tokens of the answer to a prompt of the fingerprint."""

    row: Literal["fingerprint"] = "fingerprint"
    key: Sha256
    next: NextTokens


FINGERPRINT = {content_sha256({"fingerprint": name}): name for name in PROMPTS}
"""The prompts of the fingerprint by the keys of their rows. The candidate alone is measured on them."""


class SkipReason(StrEnum):
    """Why a contestant could not be measured on an item."""

    TOO_LONG = "too_long"
    """Prompt and answer do not fit into the model's context."""
    NO_ANSWER = "no_answer"
    """The conversation does not end with a non-empty answer of the assistant."""
    REFUSED = "refused"
    """The model's chat template refuses the messages of the fingerprint's prompt."""


class SkippedRow(Frozen):
    """An item that this contestant cannot be measured on, on any machine."""

    row: Literal["skipped"] = "skipped"
    key: Sha256
    reason: SkipReason
    detail: str
    """The item's name, and what is wrong with the item."""


Row = HoldoutRow | RegressionRow | RepeatRow | LmEvalRow | FingerprintRow | SkippedRow
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

    @property
    def fingerprint(self) -> tuple[NextTokens, ...]:
        """The fingerprint of the contestant; empty: it was not measured."""
        rows = (self.rows.get(key) for key in FINGERPRINT)
        return tuple(row.next for row in rows if isinstance(row, FingerprintRow))

    def to_lines(self) -> str:
        lines = [self.header.model_dump_json(), *(row.model_dump_json() for row in self.rows.values())]
        return "".join(f"{line}\n" for line in lines)


def read_measurement(text: str) -> Measurement | None:
    """Read JSON Lines; None: there is no header. Everything from the first unreadable line on is ignored."""
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
    """Return an example's key. It follows from the prompt and the expected answer, so it is the same in every
    dataset version."""
    messages = [[message.role, message.content] for message in example.messages]
    return content_sha256({"messages": messages, "max_output_tokens": max_output_tokens})


def model_key(
    base: BaseModelRef,
    adapter: AdapterRef | None,
    *,
    quantization: str | None,
    decoding: Decoding = GREEDY,
    template: ChatTemplateKwargs | None = None,
    constraint: JsonObject | None = None,
) -> str:
    """Return a contestant's key. It follows from the weights (base revision, quantisation, the adapter's
    files), from the decoding, from the chat template's variables, ``template``, and from the schema that
    constrains answers."""
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
        | ({} if decoding == GREEDY else {"decoding": decoding.model_dump(mode="json")})
        | ({"template": template} if template else {})
        | ({} if constraint is None else {"constraint": constraint}),
    )


class RowFile:
    """The rows of one contestant on disk, appended batch by batch. The file survives a killed worker."""

    def __init__(self, path: Path, header: Header) -> None:
        """Continue the file of an earlier worker at ``path``. Rows with another header are discarded."""
        self._path = path
        found = read_existing(path, header) or Measurement(header=header)
        self.rows: dict[str, Row] = dict(found.rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Rewrite the whole file, so that no row is appended to half a line of a killed worker.
        replace_file(path, found.to_lines().encode())

    def add(self, rows: Sequence[Row]) -> None:
        """Append ``rows`` and flush them to the operating system."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{row.model_dump_json()}\n" for row in rows))
        self.rows.update({row.key: row for row in rows})

    def holds(self, keys: Sequence[str]) -> bool:
        return all(key in self.rows for key in keys)


def read_existing(path: Path, header: Header) -> Measurement | None:
    """Read ``path``; None: it is missing or has another header."""
    try:
        found = read_measurement(path.read_text("utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    return found if found is not None and found.matches(header) else None
