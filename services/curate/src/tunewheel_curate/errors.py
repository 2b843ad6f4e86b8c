"""Errors that curate tells apart beside those that all services know."""

from __future__ import annotations

from tunewheel_contracts.errors import TransientError


class SourceAway(TransientError):
    """A source that one project names, a teacher or general data, does not answer."""
