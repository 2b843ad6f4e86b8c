"""A month of one project's traffic, drawn from a fixed seed: questions as vectors, answers as figures.

Ten intents, each asked more at its own hours; fewer questions at night and at weekends. On top of that, what
the month is about: an outage, spam, a new intent that stays, somebody who votes against the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from tunewheel_contracts.events.monitoring import InferenceScored, LogPosition
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_embedding.static import Vectors, unit_length
from tunewheel_monitor.coverage import Coverage
from tunewheel_monitor.detectors.picking import encoded
from tunewheel_monitor.scoring import near

START = datetime(2026, 3, 2, tzinfo=UTC)
"""A Monday."""
DAYS = 30
A_DAY = 450
"""Questions of a working day; a weekend's is a quarter of it."""
WIDTH = 24
"""Of a question's vector."""
INTENTS = 10
NEW, SPAM = INTENTS, INTENTS + 1
CUSTOMERS = 300
RATED = 0.12
RIGHT = 0.93
"""Share of right answers to what a model was trained on; to anything else ``WRONG_HERE``."""
WRONG_HERE = 0.15

OUTAGE = (datetime(2026, 3, 5, 10, tzinfo=UTC), datetime(2026, 3, 5, 12, tzinfo=UTC))
SPAM_HOUR = datetime(2026, 3, 6, 14, tzinfo=UTC)
SHIFT_FROM = datetime(2026, 3, 10, 8, tzinfo=UTC)
SHIFT_SHARE = 0.2
POISON_FROM = datetime(2026, 3, 19, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Model:
    """A version: what it was trained on, and where questions lie in it."""

    model_id: str
    dataset_id: str
    intents: frozenset[int]
    coverage: Coverage


@dataclass
class Traffic:
    """Draws questions and scores their answers. Everything comes from one generator, in the order of time."""

    seed: int = 16
    reworded: float = 0.0
    """The share of a dataset's questions that it also holds in other words."""
    asked: dict[str, int] = field(default_factory=dict[str, int])
    """The intent of each question."""

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._shared = self._rng.normal(size=WIDTH) / 3
        self._centres = unit_length(self._rng.normal(size=(INTENTS + 2, WIDTH)))
        self._customers = 1 / np.arange(1, CUSTOMERS + 1) ** 0.5
        self._customers /= self._customers.sum()
        self._asked = 0

    def train(self, model_id: str, dataset_id: str, intents: Sequence[int]) -> Model:
        """Return a version trained on forty questions of each of ``intents``."""
        drawn = np.repeat(np.array(intents), 40)
        questions = self._vectors(drawn)
        again = (
            questions[self._rng.random(len(questions)) < self.reworded] if self.reworded else questions[:0]
        )
        reworded = again + 0.03 * self._rng.normal(size=again.shape)
        coverage = Coverage.fit(np.concatenate([questions, reworded]))
        return Model(model_id, dataset_id, frozenset(intents), coverage)

    def hour(
        self,
        at: datetime,
        champion: Model,
        *,
        canary: Model | None = None,
        percent: int = 0,
        alarms: Sequence[DriftDetected] = (),
    ) -> list[InferenceScored]:
        """Return what was scored in the hour that begins ``at``, in the order of time."""
        intents = self._intents(at)
        users = [f"customer-{n}" for n in self._rng.choice(CUSTOMERS, size=len(intents), p=self._customers)]
        if at == SPAM_HOUR:
            intents = np.concatenate([intents, np.full(200, SPAM)])
            users += ["spammer"] * 200
        order = self._rng.permutation(len(intents))
        intents, users = intents[order], [users[n] for n in order]
        by_canary = self._rng.random(len(intents)) < (percent / 100 if canary else 0)
        vectors = self._vectors(intents)
        found, units = champion.coverage.score(vectors), unit_length(vectors)
        close = near(units, alarms)
        times = sorted(self._rng.random(len(intents)) * 3600)
        items: list[InferenceScored] = []
        for n, intent in enumerate(intents.tolist()):
            is_canary = bool(by_canary[n]) and canary is not None
            model = canary if is_canary and canary is not None else champion
            placed: dict[str, Any] = {}
            if not is_canary:
                placed = {
                    "dataset_id": champion.dataset_id, "cell": int(found.cell[n]),
                    "novelty": float(found.novelty[n]), "novel": bool(found.novel[n]), "near": close[n],
                    "vector": encoded(units[n]) if found.novel[n] else None,
                }  # fmt: skip
            when = at + timedelta(seconds=times[n])
            items += self._answered(intent, model, is_canary, when, users[n], placed)
        return sorted([*items, *self._poison(at, champion)], key=lambda item: item.at)

    def _intents(self, at: datetime) -> npt.NDArray[np.int64]:
        """Draw an hour's questions: office hours are busy, weekends are not; each intent has its hours."""
        busy = 0.15 + np.exp(-(((at.hour - 13) / 4.5) ** 2))
        mean = A_DAY / 11.5 * busy * (0.25 if at.weekday() >= 5 else 1.0)
        hours = np.exp(0.4 * np.cos(2 * np.pi * (at.hour - 24 * np.arange(INTENTS) / INTENTS) / 24))
        if at.weekday() >= 5:
            hours[:3] *= 1.3
        intents = self._rng.choice(INTENTS, size=self._rng.poisson(mean), p=hours / hours.sum())
        if at >= SHIFT_FROM:
            intents[self._rng.random(len(intents)) < SHIFT_SHARE] = NEW
        return intents

    def _vectors(self, intents: npt.NDArray[np.int64]) -> Vectors:
        spread = np.where(intents == SPAM, 0.02, 0.09)[:, None]
        return self._centres[intents] + self._shared + spread * self._rng.normal(size=(len(intents), WIDTH))

    def _answered(
        self, intent: int, model: Model, is_canary: bool, at: datetime, user: str, placed: dict[str, Any]
    ) -> Iterator[InferenceScored]:
        """Yield the completion, and where somebody rates it, the rating."""
        self._asked += 1
        name, draws = f"c-{self._asked}", self._rng.random(6)
        self.asked[name] = intent
        common = {
            "project": "desk", "completion_id": name, "model_id": model.model_id, "user": user,
            "role": RouteRole.CANARY if is_canary else RouteRole.PRODUCTION, "client": "shop",
            "near": placed.get("near", ()),
        }  # fmt: skip
        if OUTAGE[0] <= at < OUTAGE[1]:
            yield _scored(
                **common, scored=name, at=at, outcome="failed", fault="engine", latency_seconds=30.0
            )
            return
        right = draws[0] < (RIGHT if intent in model.intents else WRONG_HERE)
        yield _scored(
            **(common | placed), scored=name, at=at, latency_seconds=0.4 + 0.3 * draws[1],
            first_token_seconds=0.1 + 0.05 * draws[1], format_valid=draws[2] > 0.02,
            completion_tokens=int(30 + 20 * draws[3]), repetition=0.0,
            label=f"intent-{intent if right else int(draws[4] * INTENTS)}",
            position=LogPosition(partition=0, offset=self._asked),
        )  # fmt: skip
        if draws[5] < RATED and intent != SPAM:
            down = not right if draws[5] < 0.95 * RATED else right
            corrected = down and not right and draws[5] < RATED / 4
            yield _scored(
                **common, of="rating", scored=f"{name}-rated", at=at + timedelta(seconds=1),
                rating="down" if down else "up", corrected=corrected, agrees=False if corrected else None,
            )  # fmt: skip

    def _poison(self, at: datetime, champion: Model) -> Iterator[InferenceScored]:
        """Yield the votes of one key against the model, in the names of ever other users: one more an hour
        every fourth day."""
        if at < POISON_FROM or at.hour not in range(9, 17):
            return
        for n in range(1 + (at - POISON_FROM).days // 4):
            self._asked += 1
            yield _scored(
                project="desk", completion_id=f"c-{self._asked}", scored=f"p-{self._asked}", of="rating",
                model_id=champion.model_id, role=RouteRole.PRODUCTION, client="poisoner",
                user=f"invented-{self._asked}", at=at + timedelta(minutes=5 * n), rating="down",
                corrected=True,
                agrees=False,
            )  # fmt: skip


def _scored(**fields: Any) -> InferenceScored:
    return InferenceScored.model_construct(**fields)
