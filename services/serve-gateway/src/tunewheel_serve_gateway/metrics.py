"""The gateway's metrics (see ``runtime.metrics``).

Metrics in ``BY_ENGINE`` have the label ``engine`` (host and port), those in ``BY_PROJECT`` the label
``project``, and those in ``SECONDS`` the labels ``project``, ``role`` and ``model``.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.metrics import Meter
from tunewheel_runtime import metrics

COUNTERS: Mapping[str, str] = {
    "completions.answered": "Chat completions answered",
    "completions.failed": "Chat completions that the engine failed to answer",
    "completions.disconnected": "Chat completions whose client went away",
    "completions.replaced": "Chat completions that a candidate in canary failed, so the champion was asked",
    "completions.refused": "Requests of known callers refused before they reached the engine",
    "limits.refused": "Requests refused by a limit or a budget of their caller",
    "limits.away": "Requests admitted or refused by this gateway alone, since Redis was away",
    "log.published": "inference.completed events acknowledged by the broker",
    "log.dropped": "inference.completed events lost: disk full or damaged, or the event is not acceptable",
    "log.unspooled": "Answers sent before the disk had them, as it hung: a kill in that moment loses them",
    "log.recovered": "Completions that an earlier process answered and did not come to publish",
    "shadow.copied": "Requests copied to a shadow model",
    "shadow.dropped": "Shadow copies dropped: too many waited, or the engine was full or away",
    "retrieval.answered": "Requests whose project's index was searched for passages",
    "retrieval.by_words": "Of these, those searched by words alone: the question had no vector",
    "retrieval.shortened": "Passages left out of prompts that the model's context did not hold",
    "retrieval.unavailable": "Requests answered without passages, or refused, for want of an index",
    "indexes.opened": "Index versions opened",
    "indexes.failed": "Failed attempts to open an index version",
    "feedback.received": "Feedback published",
    "adapters.loaded": "Adapters loaded into the engine",
    "adapters.failed": "Failed attempts to load an adapter",
    "adapters.unloaded": "Adapters unloaded from the engine",
}
BY_ENGINE: Mapping[str, str] = {
    "engine.retries": "Requests that this engine did not answer and that another was asked for",
    "engine.breakers_opened": "Times that this engine failed so often that no more was asked of it",
}

BY_PROJECT: Mapping[str, str] = {
    "completions.abstained": "Chat completions whose answer was not sent, as the model was not sure of it",
    "tokens.prompt": "Tokens of prompts that were answered, as the engine counts them",
    "tokens.answered": "Tokens of answers, as the engine counts them",
}
SECONDS: Mapping[str, str] = {
    "completion.seconds": "Chat completions from the request to the engine to the whole answer, by outcome",
    "first_token.seconds": "Streamed chat completions from the request to the engine to the first text",
}


MOST_MODELS = 100
"""Most values of the label ``model`` in the life of a process. Further models are ``other``."""


class Metrics(metrics.Metrics):
    def __init__(self, meter: Meter) -> None:
        super().__init__(
            meter,
            "gateway",
            {**COUNTERS, **BY_ENGINE, **BY_PROJECT},
            labels=dict.fromkeys(BY_ENGINE, "engine") | dict.fromkeys(BY_PROJECT, "project"),
            seconds=SECONDS,
            bounds=metrics.ANSWER_SECONDS,
        )
        self._models: set[str] = set()

    def label_of(self, model_id: str) -> str:
        """Return the value of the label ``model`` for this model."""
        if len(self._models) < MOST_MODELS:
            self._models.add(model_id)
        return model_id if model_id in self._models else "other"
