"""One engine of the pool: its client, and what is known of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef

from tunewheel_serve_gateway.judged import says_base, whole_model_name
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.protocol import Upstream, UpstreamError

NOT_ASKED = "not asked yet"


class Endpoint:
    """One engine. ``ready`` are the models that may be asked of it, beside its base."""

    def __init__(self, url: str, client: Upstream, breaker: Breaker, *, was_found: bool = False) -> None:
        """``was_found``: behind a name."""
        self.url = url
        self.was_found = was_found
        self.name = urlsplit(url).netloc.rpartition("@")[2] or url
        """Host and port: the label of its metrics."""
        self.client = client
        self.breaker = breaker
        self.error: str | None = NOT_ASKED
        """Why its models could not be listed last; None: they could."""
        self.is_away = False
        """Whether there was no connection when its models were to be listed last."""
        self.last_failure: UpstreamError | None = None
        self.listed: frozenset[str] = frozenset()
        """The names that it answered to when it was asked last."""
        self.is_known = False
        """Whether its models were ever listed."""
        self.ready: set[str] = set()
        self.outstanding = 0
        """Requests of this gateway that it has not finished."""
        self.idle = asyncio.Event()
        self.idle.set()
        self.answered_at = 0.0
        """Monotonic seconds: when it last gave an answer, or the first text of one."""
        self.in_use: Counter[str] = Counter()
        self.last_used: dict[str, float] = {}
        """Monotonic seconds by model."""
        self.loaded_at: dict[str, float] = {}
        """Monotonic seconds by model: when this gateway loaded it last."""

    @contextmanager
    def answering(self, model_id: str) -> Iterator[None]:
        """Count a request, and keep ``model_id`` from being unloaded meanwhile."""
        self.breaker.begin()
        self.outstanding += 1
        self.idle.clear()
        self.in_use[model_id] += 1
        self.last_used[model_id] = time.monotonic()
        try:
            yield
        except BaseException:
            self.breaker.give_up()
            raise
        finally:
            self.outstanding -= 1
            if not self.outstanding:
                self.idle.set()
            self.in_use[model_id] -= 1
            if not self.in_use[model_id]:
                del self.in_use[model_id]

    def take_listing(self, listed: set[str] | None, before: set[str]) -> None:
        """Take over the names that the engine answers to; None: it cannot tell. ``before`` was ready when the
        question went out: what was loaded since then is not in the answer."""
        self.is_known = True
        if listed is not None:
            self.listed = frozenset(listed)
            self.ready = listed | self.ready - before

    def take_loaded(self, model_id: str) -> None:
        """Take note that ``model_id`` was loaded just now."""
        self.ready.add(model_id)
        self.loaded_at[model_id] = time.monotonic()

    def says(self, base: str) -> bool | None:
        """Tell whether it serves ``base`` by its own word; None: it does not say, or was never asked."""
        return True if base in self.listed else says_base(base, self.client.bases)

    def name_of_whole(self, adapter: AdapterRef) -> str | None:
        """Return the name of a whole model that this engine was started on; None: it was not. An engine of
        the model's base may have loaded it, under its id, beside that base."""
        base = adapter.base.name
        if adapter.method is not TrainMethod.FULL or base in self.listed or base in self.client.bases:
            return None
        return whole_model_name(adapter, self.listed, self.client.bases)

    @property
    def whole(self) -> frozenset[str]:
        """The whole models that this engine says it has loaded beside its base."""
        return frozenset[str]().union(*(base.whole for base in self.client.bases.values()))

    def body_for(self, target: Target, body: dict[str, Any]) -> dict[str, Any]:
        """Return ``body`` under the name by which this engine knows the model."""
        name = self.name_of_whole(target.adapter) if target.adapter else None
        return body if name is None else {**body, "model": name}
