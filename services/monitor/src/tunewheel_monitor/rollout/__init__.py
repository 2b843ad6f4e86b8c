"""Is a candidate holding up in shadow or canary? Pure: counts in, verdict out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.rollout_spec import RolloutSpec, StagePolicy
from tunewheel_contracts.formats.serving import RouteRole

REMEMBERED = 10_000
"""Completions that are known again when they come twice: more than lie in the one segment of its disk queue
that a gateway may publish again after a kill."""
MAX_P = 0.001
"""Of Fisher's exact test, for the engine to have failed the candidate more often than the champion. It is
asked with every batch, so a single look must find more than the usual .01."""


@dataclass
class Tally:
    """Requests of one side of the comparison."""

    requests: int = 0
    errors: int = 0
    invalid: int = 0
    incidents: int = 0
    """Requests that the engine failed, whichever model was asked; none of ``requests``."""
    unjudged: int = 0
    """Answers of which nobody can say whether they are valid: they were logged without texts or verdict."""

    def add(self, *, error: bool, valid: bool | None) -> None:
        self.requests += 1
        self.errors += error
        self.invalid += not error and valid is False
        self.unjudged += not error and valid is None

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def invalid_rate(self) -> float:
        """Share of the answers (errors and what nobody judged aside) that are invalid."""
        answered = self.judged - self.errors
        return self.invalid / answered if answered else 0.0

    @property
    def judged(self) -> int:
        """Requests that failed, or whose answers are known to be valid or not."""
        return self.requests - self.unjudged

    def with_incidents(self) -> Tally:
        """Return the tally in which the engine's incidents are failed requests."""
        failed = self.incidents
        return Tally(self.requests + failed, self.errors + failed, self.invalid, unjudged=self.unjudged)

    def figures(self) -> dict[str, float]:
        figures = {
            "requests": float(self.requests),
            "error_rate": self.error_rate,
            "invalid_rate": self.invalid_rate,
        }
        return figures | ({"engine_incidents": float(self.incidents)} if self.incidents else {})


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

    def count(self, completion: InferenceCompleted, *, valid: bool | None) -> bool:
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
        if completion.fault == "engine":
            side.incidents += 1
            return True
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

    Both sides must have answered ``min_requests`` that somebody judged, unless the champion gets no traffic
    at all: then its rate of invalid outputs counts as zero. Too many errors need no comparison.
    """
    policy: StagePolicy = rollout.shadow if trial.stage == "shadow" else rollout.canary
    candidate, champion = trial.candidate, trial.champion
    alone = trial.stage == "canary" and rollout.canary.percent == 100
    if alone:
        candidate = candidate.with_incidents()  # nobody else's requests tell whose fault they are
    if candidate.requests + candidate.incidents >= policy.min_requests and _breaks_engine(
        candidate, champion
    ):
        reason = f"the engine failed {_of(candidate)} of the candidate's requests"
        return Verdict("failed", (f"{reason} and {_of(champion)} of the champion's",))
    if candidate.requests < policy.min_requests:
        return None
    if candidate.error_rate > policy.max_error_rate:
        reason = _too_many("error rate", candidate.error_rate, policy.max_error_rate)
        # Of errors that differ any may quote a customer; one that every request met says what is wrong.
        same = candidate.errors == candidate.requests and len(trial.errors) == 1
        return Verdict("failed", (f"{reason}: {next(iter(trial.errors))}" if same else reason,))
    if candidate.judged < policy.min_requests:
        return None
    if champion.judged < policy.min_requests and not alone:
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


def _breaks_engine(candidate: Tally, champion: Tally) -> bool:
    """Tell whether the engine fails the candidate more often than the champion. An incident of the engine
    hits both alike."""
    from scipy import stats

    if not candidate.incidents or not champion.requests + champion.incidents:
        return False
    table = [[candidate.incidents, candidate.requests], [champion.incidents, champion.requests]]
    exact: Any = stats.fisher_exact(table, alternative="greater")
    return float(exact.pvalue) < MAX_P


def _of(tally: Tally) -> str:
    return f"{tally.incidents} of {tally.requests + tally.incidents}"


def _too_many(what: str, observed: float, limit: float) -> str:
    return f"{what} {observed:.1%} is above the tolerated {limit:.1%}"
