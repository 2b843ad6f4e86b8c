"""Errors of embedders."""

from __future__ import annotations

from tunewheel_contracts.errors import TransientError, TunewheelError


class EndpointAway(TransientError):
    """The endpoint does not answer, or asks to retry later."""


class EmbeddingRefused(TunewheelError):
    """The endpoint refuses, or its answer is not as asked for. A repetition would not help.

    ``may_be_one_text``: the same request without one of its texts might succeed.
    """

    def __init__(self, message: str, *, may_be_one_text: bool = False) -> None:
        super().__init__(message)
        self.may_be_one_text = may_be_one_text
