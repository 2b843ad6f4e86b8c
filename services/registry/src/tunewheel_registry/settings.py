"""Settings of the registry: nothing beyond what every service has."""

from __future__ import annotations

from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """See ``ServiceSettings``; the registry keeps no state of its own to configure."""
