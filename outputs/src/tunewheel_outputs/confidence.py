"""Measures how sure a model is of an answer, from the log-probabilities of its tokens. The gateway and eval
both use this module, so that production is compared with held-out rows by the same measure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import exp, log

from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.labels import label_of, label_text


def confidence_of(tokens: Sequence[tuple[bytes, float]], task: TaskSpec | None) -> Confidence | None:
    """Return the confidence in an answer; None: it has no token.

    ``tokens``: the UTF-8 bytes of each token and its log-probability in nats, without the end token.
    """
    if not tokens:
        return None
    values = [min(value, 0.0) for _, value in tokens]  # an engine may round to a little above 0
    found = None if task is None else label_span(b"".join(piece for piece, _ in tokens), task)
    return Confidence(
        tokens=len(tokens),
        total=sum(values),
        least=min(values),
        label=None if found is None else _within(tokens, values, *found),
    )


def label_probability(found: Confidence | None) -> float | None:
    """Return the model's probability of the label that it gave; 0: the answer has none. None: nothing was
    measured."""
    if found is None:
        return None
    return 0.0 if found.label is None else exp(found.label)


def logit(share: float) -> float:
    """Return the logarithm of the odds of a probability. One nearer to 0 or 1 than a millionth counts as a
    millionth."""
    share = min(1 - 1e-6, max(1e-6, share))
    return log(share / (1 - share))


def _within(tokens: Sequence[tuple[bytes, float]], values: Sequence[float], start: int, end: int) -> float:
    """Return the sum over the tokens that overlap the bytes from ``start`` to ``end``."""
    total, at = 0.0, 0
    for (piece, _), value in zip(tokens, values, strict=True):
        if at < end and at + len(piece) > start:
            total += value
        at += len(piece)
    return total


def label_span(answer: bytes, task: TaskSpec) -> tuple[int, int] | None:
    """Return where the label stands in ``answer``: the positions of its first byte, and after its last one.
    None: the answer has no label (``label_of``)."""
    try:
        text = answer.decode()
    except UnicodeDecodeError:
        return None
    label = label_of(text, task)
    if label is None:
        return None
    if task.label_field is None:
        start = text.index(label)
        return _in_bytes(text, start, start + len(label))
    decoder, found = json.JSONDecoder(), None
    # JSON may write the field's name with escapes; answers do not, and such an answer has no span
    for key in re.finditer(rf"{re.escape(json.dumps(task.label_field, ensure_ascii=False))}\s*:\s*", text):
        try:
            value, end = decoder.raw_decode(text, key.end())
        except ValueError:
            continue  # within a string that looks like JSON
        if label_text(value) == label:
            found = _in_bytes(text, key.end(), end)
    return found


def _in_bytes(text: str, start: int, end: int) -> tuple[int, int]:
    return len(text[:start].encode()), len(text[:end].encode())
