"""The refusals of the control API."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.api.errors import ErrorResponse
from tunewheel_runtime.identity.guard import RESPONSES

REFUSALS: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    404: {"model": ErrorResponse, "description": "The named thing is not there; `param` says which"},
    409: {"model": ErrorResponse, "description": "Several things are meant, or the state forbids it"},
}
"""The refusals of every route, for the API's description."""
