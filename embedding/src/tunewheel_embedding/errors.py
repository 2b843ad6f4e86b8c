"""What an embedder may answer instead of vectors."""

from __future__ import annotations

from tunewheel_contracts.errors import TransientError, TunewheelError


class EndpointAway(TransientError):
    """The endpoint does not answer, or asks to come later."""


class EmbeddingRefused(TunewheelError):
    """The endpoint says no, or answers other than the vectors that were asked for: asking again is no use.

    ``may_be_one_text``: without one of the texts the same request might be answered.
    """

    def __init__(self, message: str, *, may_be_one_text: bool = False) -> None:
        super().__init__(message)
        self.may_be_one_text = may_be_one_text
