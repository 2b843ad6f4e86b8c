"""Refusals, in the shape of OpenAI's API."""

from __future__ import annotations

from tunewheel_contracts.fields import Frozen


class ErrorDetail(Frozen):
    message: str
    """The field, the fault and the fix, in words."""
    type: str
    """``authentication_error``, ``permission_error``, ``invalid_request_error`` or ``server_error``."""
    param: str | None = None
    """The field to correct; None: no field is at fault."""
    code: str
    """The reason for programs, such as ``role_missing``, ``not_found``, ``conflict`` or ``invalid``."""


class ErrorResponse(Frozen):
    """The body of every refusal."""

    error: ErrorDetail
