"""Why a model is not served, engine by engine. ``/v1/status``, health warnings and the errors of clients say
what is said here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef

from tunewheel_serve_gateway.upstream.bases import NoEngine, UnfitEngine
from tunewheel_serve_gateway.upstream.endpoint import Endpoint

if TYPE_CHECKING:
    from tunewheel_serve_gateway.loading import EngineAdapters

LASTING_ATTEMPTS = 3
"""After this many failed attempts to load an adapter, another model stands in. A single failure may be
short."""
LONGEST_WARNING = 1_000
"""Characters."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an adapter is not loaded, and when (loop time, seconds) it is tried again."""

    attempts: int
    retry_at: float
    reason: str
    final: bool = False
    """Whether the engine, or what was judged, is against it, so that time is not expected to mend it. It is
    tried again all the same."""


@dataclass(frozen=True)
class WhyNot:
    """``wanted`` returns the adapters that are to be on an engine."""

    engines: Mapping[Endpoint, EngineAdapters]
    wanted: Callable[[Endpoint], dict[str, AdapterRef]]

    def of(self, endpoint: Endpoint, adapter: AdapterRef, bundle: Bundle | None) -> str | None:
        """Return why ``endpoint`` does not answer with the model of ``adapter``, which was judged with
        ``bundle``; None: it does."""
        name, engine = adapter.model_id, self.engines.get(endpoint)
        if endpoint.breaker.is_open or engine is None:
            return f"the engine is not asked: {endpoint.trouble or 'it has left'}"
        if name in endpoint.ready:
            return None
        if (failure := engine.failures.get(name)) is not None:
            return failure.reason
        if endpoint.error is not None:
            return f"the engine does not list its models: {endpoint.error}"
        try:
            endpoint.check(adapter, bundle)
            endpoint.identity.check_takes(adapter)
        except (UnfitEngine, NoEngine) as error:
            return str(error)
        if name in engine.loads or name in self.wanted(endpoint):
            return "it is being loaded"
        return "no route names it; a request for it by its id loads it"

    @property
    def failures(self) -> dict[str, Failure]:
        """The failure to load each model, from the engine with the most attempts."""
        found: dict[str, Failure] = {}
        for engine in self.engines.values():
            for name, failure in engine.failures.items():
                if name not in found or found[name].attempts < failure.attempts:
                    found[name] = failure
        return found

    def failed_everywhere(self) -> dict[str, Failure]:
        """Return the models that none of their reachable engines could load, with the failure of the engine
        that has tried least often."""
        names = {name for engine in self.engines.values() for name in engine.failures}
        if not names:
            return {}
        wanted = {endpoint: self.wanted(endpoint) for endpoint in self.engines}
        found: dict[str, Failure] = {}
        for name in names:
            homes = [endpoint for endpoint in self.engines if name in wanted[endpoint]]
            up = [endpoint for endpoint in homes if not endpoint.breaker.is_open] or homes
            failures = [f for endpoint in up if (f := self.engines[endpoint].failures.get(name)) is not None]
            if failures and len(failures) == len(up):
                found[name] = min(failures, key=lambda failure: (failure.attempts, failure.final))
        return found

    def engines_unheard(self, trouble: str | None) -> str | None:
        """Return which engines cannot list their models, and why; None: all can. ``trouble``: the names that
        have no address."""
        errors = [(e.name, e.error) for e in self.engines if e.error is not None]
        if len(self.engines) == 1 and trouble is None:
            return errors[0][1] if errors else None
        told = [f"{name}: {error}" for name, error in errors]
        return "; ".join([*told, trouble] if trouble else told) or None


def warning_of(failures: Mapping[str, Failure]) -> str | None:
    """Return the text of the warning about models that no engine loads; None: there are none."""
    texts = [f"{name} is not loaded: {failure.reason}" for name, failure in sorted(failures.items())]
    return "; ".join(texts)[:LONGEST_WARNING] or None
