"""Settings of the registry: those that every service has, and no others."""

from __future__ import annotations

from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """See ``ServiceSettings``."""
