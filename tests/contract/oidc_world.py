"""One service's view of who calls, beside a real issuer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.roles import InvalidToken, NotAuthenticated
from tunewheel_runtime.settings import HttpSettings
from tunewheel_testing.clock import Clock
from tunewheel_testing.oidc_issuer import Issuer


class World:
    """One service's view of who calls, with a clock of its own for the age of keys."""

    def __init__(self, issuer: Issuer, key_file: Path | None, **settings: Any) -> None:
        told = {
            "identity": "required", "oidc_issuer": issuer.url, "oidc_audience": issuer.audience,
            "api_keys_file": key_file, **settings,
        }  # fmt: skip
        self.clock = Clock(1000.0)
        self.warned: dict[str, str | None] = {}
        self.access = Access(
            HttpSettings.model_validate(told), warn=self.warned.__setitem__, clock=self.clock
        )

    async def name(self, token: str) -> str | None:
        return (await self.access.identify(f"Bearer {token}")).name

    async def refusal(self, token: str) -> str:
        with pytest.raises(NotAuthenticated) as refused:
            await self.name(token)
        assert type(refused.value) is InvalidToken, refused.value
        return str(refused.value)

    async def fetched(self) -> None:
        """Wait for the fetch that is under way."""
        fetching = self.access.begin()
        assert fetching is not None
        await fetching
