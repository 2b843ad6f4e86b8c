from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("ingest", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ingest")
