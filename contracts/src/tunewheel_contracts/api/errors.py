"""Refusals, in the shape of OpenAI's API."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen


class Fault(Frozen):
    """One of several faults of a request."""

    param: str
    """The field to correct."""
    message: str
    """The fault and the fix."""


class ErrorDetail(Frozen):
    message: str
    """The field, the fault and the fix, in words."""
    type: str
    """``authentication_error``, ``permission_error``, ``invalid_request_error`` or ``server_error``."""
    param: str | None = None
    """The field to correct; None: no field is at fault."""
    code: str
    """The reason for programs, such as ``role_missing``, ``not_found``, ``conflict`` or ``invalid``."""
    faults: Annotated[tuple[Fault, ...], Field(exclude_if=operator.not_)] = ()
    """The faults, where a request has several, up to a thousand. The message tells the first one."""


class ErrorResponse(Frozen):
    """The body of every refusal."""

    error: ErrorDetail
