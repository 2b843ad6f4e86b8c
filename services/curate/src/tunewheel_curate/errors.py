"""Curate's own errors, in addition to those of the runtime."""

from __future__ import annotations

from tunewheel_contracts.errors import TransientError


class SourceAway(TransientError):
    """A source that a project's spec names (a teacher, general data, an index) does not answer."""
