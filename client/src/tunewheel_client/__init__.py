"""Python client of Tunewheel, synchronous and asynchronous::

    from tunewheel_client import Client

    with Client() as client:                      # the context of `tunewheel login`, or TUNEWHEEL_URL
        answer = client.ask("helpdesk", "My solar panel hums. What now?")

``AsyncClient`` is the same with ``await``. Importing this package is cheap: modules load when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewheel_client.aio.client import AsyncClient
    from tunewheel_client.aio.login import login as login_async
    from tunewheel_client.contexts import Addresses, Context, Contexts
    from tunewheel_client.errors import (
        Away,
        ClientError,
        Conflict,
        InvalidContexts,
        NoAddress,
        NotAllowed,
        NotFound,
        Refused,
    )
    from tunewheel_client.sync.client import Client
    from tunewheel_client.sync.login import login
    from tunewheel_client.values import (
        Answer,
        DeviceCode,
        FeedbackReceipt,
        Gap,
        Lowered,
        Receipt,
        RefusedItem,
    )

__all__ = [
    "Addresses",
    "Answer",
    "AsyncClient",
    "Away",
    "Client",
    "ClientError",
    "Conflict",
    "Context",
    "Contexts",
    "DeviceCode",
    "FeedbackReceipt",
    "Gap",
    "InvalidContexts",
    "Lowered",
    "NoAddress",
    "NotAllowed",
    "NotFound",
    "Receipt",
    "Refused",
    "RefusedItem",
    "login",
    "login_async",
]

_HOMES = {
    "aio.client": ("AsyncClient",),
    "aio.login": ("login_async",),
    "contexts": ("Addresses", "Context", "Contexts"),
    "sync.client": ("Client",),
    "sync.login": ("login",),
    "values": ("Answer", "DeviceCode", "FeedbackReceipt", "Gap", "Lowered", "Receipt", "RefusedItem"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    module = importlib.import_module(f"{__name__}.{home}")
    found = getattr(module, name.removesuffix("_async"))
    globals()[name] = found
    return found
