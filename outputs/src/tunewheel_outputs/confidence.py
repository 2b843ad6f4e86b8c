"""Measures how sure a model is of an answer, from the log-probabilities of its tokens. The gateway and eval
both use this module, so that production is compared with held-out rows by the same measure."""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Sequence
from math import exp, log

from tunewheel_contracts.formats.confidence import Certainty, Confidence
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.labels import label_of, label_text


def confidence_of(
    answer: str, tokens: Sequence[tuple[bytes, float]], task: TaskSpec | None
) -> Confidence | None:
    """Return the confidence in ``answer``; None: the tokens are not those of its text.

    ``tokens``: the UTF-8 bytes of each token and its log-probability in nats. Tokens after the answer are
    left out, such as the end token or a stop string: some engines write them. White space is not compared:
    some engines drop it where a token begins.
    """
    solid = _solid(answer)
    if not solid:
        return None
    if not _begin_with(solid, tokens):
        tokens = _written(tokens)
        if not _begin_with(solid, tokens):
            return None
    span = None if task is None else label_span(answer, task)
    values: list[float] = []
    at, label = 0, 0.0
    for piece, value in tokens:
        if at >= len(solid):
            break
        values.append(min(value, 0.0))  # an engine may round to a little above 0
        end = at + len(_solid(piece))
        if span is not None and at < span[1] and end > span[0]:
            label += values[-1]
        at = end
    return Confidence(
        tokens=len(values), total=sum(values), least=min(values), label=None if span is None else label
    )


def _begin_with(solid: bytes, tokens: Sequence[tuple[bytes, float]]) -> bool:
    return b"".join(_solid(piece) for piece, _ in tokens).startswith(solid)


def _written(tokens: Sequence[tuple[bytes, float]]) -> list[tuple[bytes, float]]:
    """Return the tokens as engines write them in a text: with U+FFFD for bytes that are no UTF-8. A character
    stands in the token that ends it."""
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    last = len(tokens) - 1
    return [
        (decoder.decode(piece, final=number == last).encode(), value)
        for number, (piece, value) in enumerate(tokens)
    ]


def _solid(text: str | bytes) -> bytes:
    return b"".join((text if isinstance(text, bytes) else text.encode()).split())


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


def share_right(sure: float, intercept: float, slope: float) -> float:
    """Return how often a label is right of which the model's probability is ``sure``, by a calibration
    (``Calibration``)."""
    exponent = -intercept - slope * logit(sure)
    return 1.0 / (1.0 + exp(min(exponent, 700.0)))  # a steep curve would overflow


def certainty_of(found: Confidence | None, certainty: Certainty) -> float | None:
    """Return the calibrated confidence in an answer, 0 to 1; 0: it has no label. None: nothing was
    measured."""
    sure = label_probability(found)
    return share_right(sure, certainty.intercept, certainty.slope) if sure else sure


def label_span(answer: str, task: TaskSpec) -> tuple[int, int] | None:
    """Return where the label stands in ``answer``: before its first byte, and after its last one, in UTF-8
    without white space. None: the answer has no label (``label_of``)."""
    label = label_of(answer, task)
    if label is None:
        return None
    if task.label_field is None:
        start = answer.index(label)
        return len(_solid(answer[:start])), len(_solid(answer[: start + len(label)]))
    decoder, found = json.JSONDecoder(), None
    # JSON may write the field's name with escapes; answers do not, and such an answer has no span
    for key in re.finditer(rf"{re.escape(json.dumps(task.label_field, ensure_ascii=False))}\s*:\s*", answer):
        try:
            value, end = decoder.raw_decode(answer, key.end())
        except ValueError:
            continue  # within a string that looks like JSON
        if label_text(value) == label:
            found = len(_solid(answer[: key.end()])), len(_solid(answer[:end]))
    return found
