"""Detects that answers became longer or shorter.

Lengths are sorted into half octaves of tokens (16 to 22, 23 to 31, ...). Answers that end at their token
limit are a kind of their own. The standard is the last healthy windows of this version or the previous one
(``shares.py``).
"""

from __future__ import annotations

from math import floor, log2

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.shares import Shift


class Length(Shift):
    name = "length"

    def kind(self, state: State, item: InferenceScored) -> str | None:
        if item.of != "completion" or item.outcome != "answered" or item.overrides:
            return None
        return kind_of(item)


def kind_of(item: InferenceScored) -> str:
    if item.truncated:
        return "truncated"
    return str(floor(2 * log2(item.completion_tokens))) if item.completion_tokens else "empty"
