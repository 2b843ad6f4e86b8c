"""One engine of the pool: its client, its loaded models and its state."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef

from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.bases import EngineIdentity, UnfitEngine
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.fingerprints import NOTHING_RECORDED, Compared, compare
from tunewheel_serve_gateway.upstream.protocol import Upstream, UpstreamError

NOT_ASKED = "not asked yet"


class Endpoint:
    """One engine. ``ready``: the names of the models, beside its base, that it can answer with."""

    def __init__(self, url: str, client: Upstream, breaker: Breaker, *, was_found: bool = False) -> None:
        """``was_found``: whether the engine was found by resolving a name."""
        self.url = url
        self.was_found = was_found
        self.name = urlsplit(url).netloc.rpartition("@")[2] or url
        """Host and port; also the label ``engine`` of metrics."""
        self.client = client
        self.breaker = breaker
        self.error: str | None = NOT_ASKED
        """Why the last attempt to list its models failed; None: it succeeded."""
        self.is_away = False
        """Whether the last attempt to list its models found no connection."""
        self.last_failure: UpstreamError | None = None
        self.listed: frozenset[str] = frozenset()
        """The model names in its last list."""
        self.is_known = False
        """Whether its models were ever listed."""
        self.ready: set[str] = set()
        self.outstanding = 0
        """Number of this gateway's requests that the engine is answering."""
        self.idle = asyncio.Event()
        self.idle.set()
        self.answered_at = 0.0
        """Monotonic time, in seconds, of its last answer, or of the first text of a streamed answer."""
        self.scores_from = 0.0
        """Monotonic time, in seconds, from which it is asked for log-probabilities of the sample."""
        self.constrains_from: dict[str, float] = {}
        """By model: monotonic time, in seconds, from which it is asked for the output schema again."""
        self.in_use: Counter[str] = Counter()
        self.last_used: dict[str, float] = {}
        """By model: monotonic time of its last request, in seconds."""
        self.loaded_at: dict[str, float] = {}
        """By model: monotonic time at which this gateway last loaded it, in seconds."""
        self.comparisons: dict[str, Compared] = {}
        """By model: the last comparison of its fingerprint."""

    @contextmanager
    def answering(self, model_id: str) -> Iterator[None]:
        """Count a request while it runs. ``model_id`` is not unloaded meanwhile."""
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
            self._let_go(model_id)

    def _let_go(self, model_id: str) -> None:
        self.in_use[model_id] -= 1
        if not self.in_use[model_id]:
            del self.in_use[model_id]

    def compared(self, model_id: str, bundle: Bundle | None) -> Compared:
        """Return the last comparison of the model's answers with those that ``bundle`` records."""
        if bundle is None or not bundle.fingerprint:
            return NOTHING_RECORDED
        last = self.comparisons.get(model_id)
        return last if last is not None and last.recorded == bundle.fingerprint else Compared()

    async def compare(self, adapter: AdapterRef, bundle: Bundle) -> None:
        """Compare what the engine answers for ``adapter`` with what ``bundle`` records. What an earlier
        comparison showed stands if the engine does not answer now."""
        name = self.name_of_whole(adapter) or adapter.model_id
        base = self.identity.base(adapter.base.name)
        is_exact = bundle.precision == "float32" == (base and base.precision)
        self.in_use[adapter.model_id] += 1  # the model is not unloaded meanwhile
        try:
            found = await compare(self.client, name, bundle, is_exact=is_exact)
        finally:
            self._let_go(adapter.model_id)
        last = self.compared(adapter.model_id, bundle)
        stands = last.is_known and not found.is_known
        self.comparisons[adapter.model_id] = replace(last, again_at=found.again_at) if stands else found

    def check(self, adapter: AdapterRef, bundle: Bundle | None) -> None:
        """Refuse to serve ``adapter`` by this engine if the engine reports, or its answers showed, that it
        differs from what was judged. Raises UnfitEngine."""
        is_whole = self.name_of_whole(adapter) is not None
        self.identity.check(adapter, bundle, is_whole=is_whole)
        if (difference := self.compared(adapter.model_id, bundle).difference) is not None:
            raise UnfitEngine(difference)

    def unknown(self, target: Target) -> list[str]:
        """Return which judged properties of ``target`` the engine does not report."""
        if target.bundle is None:
            return []
        is_known = self.compared(target.model_id, target.bundle).is_known
        return [*self.identity.unknown(target.bundle), *([] if is_known else ["fingerprint"])]

    def take_listing(self, listed: set[str] | None, before: set[str]) -> None:
        """Take over the engine's list of models; None: the engine cannot list them. ``before``: the models
        that were ready when the list was requested. Models loaded since then stay ready, as the list lacks
        them."""
        self.is_known = True
        if listed is not None:
            self.listed = frozenset(listed)
            self.ready = listed | self.ready - before

    def take_loaded(self, model_id: str) -> None:
        """Note that ``model_id`` was loaded just now."""
        self.ready.add(model_id)
        self.loaded_at[model_id] = time.monotonic()

    @property
    def identity(self) -> EngineIdentity:
        """What the engine reported about itself when its models were listed last."""
        return self.client.identity

    def name_of_whole(self, adapter: AdapterRef) -> str | None:
        """Return the name under which this engine serves a fully fine-tuned model as its base, or None."""
        return self.identity.name_of_whole(adapter, self.listed)

    @property
    def trouble(self) -> str | None:
        """Why the engine is not asked; None: the engine is asked. Without the engine's own words on a
        request, which may quote the request."""
        failure = self.last_failure if self.breaker.is_open else None
        return failure.message if failure else self.error

    def body_for(self, target: Target, body: dict[str, Any], *, sampled: bool = False) -> dict[str, Any]:
        """Return ``body`` with the model's name at this engine, and without the output schema if the engine
        refused it. ``sampled``: with the wish for log-probabilities, if the engine did not refuse them."""
        if is_constrained(target, body) and not self.constrains(target):
            body = {name: value for name, value in body.items() if name != "response_format"}
        if sampled and time.monotonic() >= self.scores_from:
            body = {**body, "logprobs": True}
        adapter = target.adapter
        name = self.name_of_whole(adapter) if adapter else self.identity.name_of(target.upstream_model)
        return body if name in (None, target.upstream_model) else {**body, "model": name}

    def constrains(self, target: Target) -> bool:
        """Return whether the engine is asked for the output schema of ``target``."""
        return time.monotonic() >= self.constrains_from.get(target.model_id, 0.0)


def is_constrained(target: Target, body: dict[str, Any]) -> bool:
    """Return whether ``body`` asks for the output schema of ``target``, and not for a form of the client."""
    return target.response_format is not None and body.get("response_format") is target.response_format
