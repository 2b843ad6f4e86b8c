"""Is a candidate holding up in shadow or canary? Pure: counts in, verdict out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.formats.spec import RolloutSpec, StagePolicy

REMEMBERED = 10_000
"""Completions that are known again when they come twice: as many as a gateway can have waiting."""


@dataclass
class Tally:
    """Requests of one side of the comparison."""

    requests: int = 0
    errors: int = 0
    invalid: int = 0

    def add(self, *, error: bool, valid: bool) -> None:
        self.requests += 1
        self.errors += error
        self.invalid += not error and not valid

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def invalid_rate(self) -> float:
        """Share of the answers (errors aside) that are invalid."""
        answered = self.requests - self.errors
        return self.invalid / answered if answered else 0.0

    def figures(self) -> dict[str, float]:
        return {
            "requests": float(self.requests),
            "error_rate": self.error_rate,
            "invalid_rate": self.invalid_rate,
        }


@dataclass
class Trial:
    """One stage of one candidate, from the event that put it there."""

    project: str
    model_id: str
    stage: Literal["shadow", "canary"]
    started_at: datetime
    correlation_id: str | None = None
    candidate: Tally = field(default_factory=Tally)
    champion: Tally = field(default_factory=Tally)
    errors: set[str] = field(default_factory=set[str], repr=False)
    """What failed requests of the candidate were told; the first two that differ."""
    _latest: dict[str, None] = field(default_factory=dict[str, None], repr=False, compare=False)

    def recount(self) -> None:
        """Set the counts to zero: the traffic is about to be read again."""
        self.candidate, self.champion = Tally(), Tally()
        self.errors.clear()
        self._latest.clear()

    def count(self, completion: InferenceCompleted, *, valid: bool) -> bool:
        """Count one completion; False where it is no part of this comparison, or was counted just before.

        A gateway that was killed publishes again what it is not sure of. Pinned requests are no routed
        traffic. The champion's share is what it answered meanwhile.
        """
        if completion.pinned or completion.completed_at < self.started_at:
            return False
        if completion.model_id == self.model_id and completion.role.value == self.stage:
            side = self.candidate
        elif completion.role is RouteRole.PRODUCTION and completion.model_id != self.model_id:
            side = self.champion
        else:
            return False
        if completion.completion_id in self._latest:
            return False
        self._latest[completion.completion_id] = None
        if len(self._latest) > REMEMBERED:
            del self._latest[next(iter(self._latest))]
        if side is self.candidate and completion.error is not None and len(self.errors) < 2:
            self.errors.add(completion.error)
        side.add(error=completion.error is not None, valid=valid)
        return True


@dataclass(frozen=True, slots=True)
class Verdict:
    verdict: Literal["passed", "failed"]
    reasons: tuple[str, ...]


def judge(trial: Trial, rollout: RolloutSpec) -> Verdict | None:
    """Return the verdict, or None while the stage has not seen enough.

    Both sides must have answered ``min_requests``, unless the champion gets no traffic at all: then its rate
    of invalid outputs counts as zero. Too many errors need no comparison.
    """
    policy: StagePolicy = rollout.shadow if trial.stage == "shadow" else rollout.canary
    candidate, champion = trial.candidate, trial.champion
    if candidate.requests < policy.min_requests:
        return None
    if candidate.error_rate > policy.max_error_rate:
        reason = _too_many("error rate", candidate.error_rate, policy.max_error_rate)
        # Of errors that differ any may quote a customer; one that every request met says what is wrong.
        same = candidate.errors == candidate.requests and len(trial.errors) == 1
        return Verdict("failed", (f"{reason}: {next(iter(trial.errors))}" if same else reason,))
    alone = trial.stage == "canary" and rollout.canary.percent == 100
    if champion.requests < policy.min_requests and not alone:
        return None
    rise = candidate.invalid_rate - champion.invalid_rate
    if rise > policy.max_invalid_increase:
        return Verdict(
            "failed",
            (
                f"{candidate.invalid_rate:.1%} of the outputs are invalid, {rise:.1%} more than the "
                f"champion's; at most {policy.max_invalid_increase:.1%} more is tolerated",
            ),
        )
    return Verdict(
        "passed",
        (
            f"{candidate.requests} requests: {candidate.error_rate:.1%} errors, "
            f"{candidate.invalid_rate:.1%} invalid (champion {champion.invalid_rate:.1%})",
        ),
    )


def _too_many(what: str, observed: float, limit: float) -> str:
    return f"{what} {observed:.1%} is above the tolerated {limit:.1%}"
