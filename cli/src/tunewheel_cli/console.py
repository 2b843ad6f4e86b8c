"""The login link of a wheel's console, for people who start a wheel."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tunewheel_contracts.errors import TunewheelError

LOGIN_SECONDS = 10.0


async def login_text(folder: Path) -> str:
    """Return a link to the console of the wheel on ``folder``, or the reason why there is none."""
    from tunewheel_cli.calling import Call

    def ask() -> str:
        with Call(var=folder).open(timeout_seconds=LOGIN_SECONDS) as client:
            link = client.login_link()
        until = link.expires_at.astimezone()
        return f"{link.url} (for one login, until {until:%H:%M:%S})"

    try:
        return await asyncio.to_thread(ask)
    except TunewheelError as error:
        return f"no link: {error}"
