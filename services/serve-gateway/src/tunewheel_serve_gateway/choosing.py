"""Chooses the model that answers a call, finds its passages, and decides who is asked when it fails."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from tunewheel_contracts.formats.serving import Fault, RouteRole
from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_serve_gateway.call import Call
from tunewheel_serve_gateway.catalog import Catalog
from tunewheel_serve_gateway.chat_request import LIMITS, ChatRequest
from tunewheel_serve_gateway.errors import BadRequest, Unavailable, UnknownModel
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.reconcile import Reconciler
from tunewheel_serve_gateway.retrieval.retriever import Retriever
from tunewheel_serve_gateway.routing import Target, sticky_draw
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.protocol import TOO_LONG, ModelNotLoaded, UpstreamError

T = TypeVar("T")
Ask = Callable[[Call, Target, ChatRequest], Awaitable[T]]
"""Asks a model."""


@dataclass
class Choosing:
    reconciler: Reconciler
    catalog: Catalog
    retriever: Retriever
    metrics: Metrics
    settings: Settings

    async def answered(self, call: Call, ask: Ask[T]) -> T:
        """Choose the model, retrieve passages and call ``ask``.

        Where a candidate in canary fails or refuses, call ``ask`` for the champion, in what is left of the
        time for the first token. Where no engine has the model loaded any more, reload the model and call
        ``ask`` once more.
        """
        target = await self._find(call)
        request = await self._with_passages(call, target.project)
        try:
            return await self.within_context(call, target, request, ask)
        except UpstreamError as error:
            champion, failure = call.champion, error
            if champion is not None:
                target, call.asked.until = champion, call.asked.arrived + self._first_byte_seconds
            elif target.adapter is None or not isinstance(error, ModelNotLoaded):
                raise
        if champion is not None:
            try:
                return await self._replacing(call, champion, failure, request, ask)
            except ModelNotLoaded:
                if target.adapter is None:
                    raise
        await call.asked.in_time(self.reconciler.reload(target.model_id))
        if champion is None:
            target = await self._find(call)
        try:
            return await self.within_context(call, target, request, ask)
        except ModelNotLoaded as error:
            message = f"model {target.model_id} is being loaded; try again shortly"
            raise Unavailable(message, param="model", retry_after="2") from error

    def champion_for(self, call: Call, target: Target, error: BaseException) -> Target | None:
        """Return the champion, to be asked because ``target``, a candidate in canary, failed with ``error``.

        The champion's answer counts as pinned, so that the rollout compares the champion by its own share of
        the requests alone. None: the client gets the error, because ``target`` is no candidate, or no time
        is left.
        """
        if not (is_on_trial(target) and isinstance(error, UpstreamError)):
            return None
        if time.perf_counter() - call.asked.arrived >= self._first_byte_seconds:
            return None
        table = self.reconciler.table.projects.get(target.project)
        champion = table.production if table is not None else None
        return None if champion is None else replace(champion, pinned=True)

    async def _replacing(
        self, call: Call, champion: Target, failure: UpstreamError, request: ChatRequest, ask: Ask[T]
    ) -> T:
        """Call ``ask`` for the champion, after the ``failure`` of a candidate. Where the candidate refused
        the request, log that: as the model's fault if the champion answers, else as the client's."""
        log_refusal, call.log_refusal = call.log_refusal, None
        fault: Fault = "client"
        try:
            answer = await self.within_context(call, champion, request, ask)
            fault = "model"
            return answer
        finally:
            if log_refusal is not None:
                failure.fault = fault
                await log_refusal()

    def most_tokens(self, request: ChatRequest, caller: Caller) -> int:
        """Return an upper bound of the tokens of the answer and of the passages in its prompt, whichever
        model answers."""
        owners = self.reconciler.table.owners(request.model)
        version = None if owners else self.catalog.version(request.model)
        if version is not None:
            owners = [version.project]
        allowed = caller.projects_of(Role.APPLICATION)
        mine = (project for project in owners if allowed is None or project in allowed)
        passages = max((self.retriever.most_tokens(one, request.retrieval) for one in mine), default=0)
        return self._most_said(request) + passages

    def most_logprobs(self, request: ChatRequest) -> int:
        """Return the most log-probabilities in the answer. Raises BadRequest: there may be more than the
        limit."""
        if not request.parameters.get("logprobs"):
            return 0
        most = self._most_said(request) * ((request.parameters.get("top_logprobs") or 0) + 1)
        limit = self.settings.max_logprobs
        if most > limit:
            raise BadRequest(
                f"n * max_tokens * (top_logprobs + 1) is {most}; the limit here is {limit} "
                "log-probabilities: ask for fewer",
                param="top_logprobs",
                code="invalid_value",
            )
        return most

    def _most_said(self, request: ChatRequest) -> int:
        asked = [request.parameters[name] for name in LIMITS if name in request.parameters]
        table = self.reconciler.table.projects.get(request.model)
        usual = table.production.max_output_tokens if table and table.production else None
        most = max(asked, default=usual or self.settings.max_output_tokens)
        return most * (request.parameters.get("n") or 1)

    @property
    def _first_byte_seconds(self) -> float:
        return self.settings.engine_first_byte_seconds or self.settings.engine_timeout_seconds

    async def within_context(self, call: Call, target: Target, request: ChatRequest, ask: Ask[T]) -> T:
        """Call ``ask``. While the engine refuses the prompt as too long, drop the last passage and call it
        again. A prompt that is too long without passages is refused: the client must shorten it."""
        while True:
            try:
                return await ask(call, target, request)
            except UpstreamError as error:
                fewer = request.without_last_passage()
                if fewer is None or not may_be_shorter(request, error):
                    raise
                request = fewer
                self.metrics.add("retrieval.shortened")

    async def _find(self, call: Call) -> Target:
        """Return the model that answers. A version that no route names is loaded first."""
        model, table, key = call.request.model, self.reconciler.table, call.sticky or call.request.user
        draw = sticky_draw(model, key, table.candidate(model)) if key else call.chance
        allowed = call.caller.projects_of(Role.APPLICATION)
        try:
            return table.find(model, draw=draw, allowed=allowed)
        except Unavailable:
            if not await self.reconciler.reloaded(table.waiting_for(model)):
                raise
            return self.reconciler.table.find(model, draw=draw, allowed=allowed)
        except UnknownModel:
            version = self.catalog.version(model)
            if version is None or (allowed is not None and version.project not in allowed):
                raise
        return await self.reconciler.on_demand(version)

    async def _with_passages(self, call: Call, project: str) -> ChatRequest:
        request = call.request
        found = await self.retriever.retrieve(
            project, request.conversation, request.retrieval, call.caller.groups
        )
        as_declared = self.retriever.is_declared(project, request.retrieval)
        if found is None and as_declared:
            return request
        return replace(request, retrieved=found, retrieves_as_declared=as_declared)


def is_on_trial(target: Target) -> bool:
    """Return whether ``target`` is a candidate that answers its share of the requests."""
    return target.role is RouteRole.CANARY and not target.pinned


def may_be_shorter(request: ChatRequest, error: BaseException) -> bool:
    """Return whether ``request`` was refused as too long and its prompt has a passage that can be dropped."""
    is_refused = isinstance(error, UpstreamError) and error.code == TOO_LONG
    return is_refused and request.retrieved is not None and request.retrieved.fewer is not None
