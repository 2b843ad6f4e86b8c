# ruff: noqa: F403, F405 (the names of all topics are names of this module too)
"""The list of all topics. Topic creation, the catalogue in ``docs/`` and tests are generated from it.

A topic stands in a module of ``events/``: the class of its events, and a ``TopicSpec``. It is found there.
"""

from __future__ import annotations

import importlib
import pkgutil

from tunewheel_contracts import events

from .events.data import *
from .events.evaluation import *
from .events.lifecycle import *
from .events.monitoring import *
from .events.production import *
from .events.retrieval import *
from .events.training import *
from .events.turns import *
from .events.upstream import *
from .topic import *

_FIRST = (
    *("upstream", "data", "training", "evaluation", "lifecycle", "production", "monitoring", "turns"),
    "retrieval",
)
"""The modules in the order of a turn. Others follow."""


def _found() -> tuple[TopicSpec, ...]:
    names = dict.fromkeys((*_FIRST, *(module.name for module in pkgutil.iter_modules(events.__path__))))
    modules = [importlib.import_module(f"{events.__name__}.{name}") for name in names]
    return tuple(
        value for module in modules for value in vars(module).values() if isinstance(value, TopicSpec)
    )


TOPICS = _found()
COMES_AGAIN = (TICKET_PUBLISHED, DOCUMENT_PUBLISHED, EXAMPLE_PUBLISHED)
"""Topics whose content comes again as ``record.ingested``."""
TAKEN_AGAIN = (*COMES_AGAIN, FEEDBACK_RECEIVED)
"""Topics whose refused messages can be handled once more. Other systems may send these messages twice and in
any order, so a later copy changes nothing else."""
NOT_SHOWN = (*COMES_AGAIN, INFERENCE_SCORED, ALARM_OPENED)
"""Topics that the console does not read. In place of scores it reads the completions themselves,
and in place of ``alarm.opened`` it reads ``drift.detected``."""
BY_NAME: dict[str, TopicSpec] = {spec.name: spec for spec in TOPICS}
ERASES_LETTERS: Service = "ingest"
"""The service that removes erased messages from all dead-letter topics
(``tunewheel_runtime.erased_letters``)."""
ERASED_LETTERS = tuple(
    spec.dead_letter for spec in TOPICS if spec.dead_letter_exists and not spec.name.startswith("erasure.")
)
"""The dead-letter topics from which erased messages are removed. Requests and proofs of erasures name the
person, and are kept."""
