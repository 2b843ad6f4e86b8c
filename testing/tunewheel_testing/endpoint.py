"""The address of a service, and the key that tests send to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import SecretStr
from tunewheel_local.places import Var
from tunewheel_local.run_state import living
from tunewheel_local.wheel_secrets import local_key


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service's address. ``key`` None: no key is sent."""

    service: str
    url: str
    key: SecretStr | None = None

    @classmethod
    def of(cls, service: str, var: Var) -> Self:
        """Return a service of the wheel that runs on ``var``, with the wheel's own key."""
        running = living(var.run_file)
        url = running.url_of(service) if running else None
        assert url is not None, f"no {service} runs on {var.root}"
        return cls(service, url, local_key(var))

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key.get_secret_value()}"}
