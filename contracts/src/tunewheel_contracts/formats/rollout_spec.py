"""A project's settings for the rollout of a candidate: shadow, canary and guard."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Fraction, Percent, PositiveInt, Strict

DAY = 86_400


class StagePolicy(Strict):
    """When a stage is judged. The verdict comes from bounds that stay valid however often they are checked
    (always-valid inference), and not after a fixed number of requests."""

    min_requests: PositiveInt = 20
    """Fewest requests that candidate and champion must each have answered before the candidate passes."""
    max_invalid_increase: Fraction = 0.05
    """The candidate passes only if its observed rate of invalid outputs exceeds the champion's by at most
    this. Statistical uncertainty is handled by ``margin``."""
    max_error_rate: Fraction = 0.05
    """The candidate passes only if its observed share of failed requests is at most this."""
    margin: Annotated[float, Field(gt=0, lt=1, exclude_if=lambda margin: margin == 0.1)] = 0.1
    """A candidate passes once it is shown to be worse than the champion by less than this, in the shares of
    failed requests, invalid outputs and slow answers. A smaller margin needs more requests: half the margin,
    three to four times as many."""
    max_slowdown: Annotated[float, Field(ge=1, le=100, exclude_if=lambda factor: factor == 1.25)] = 1.25
    """An answer counts as slow if it takes longer than this factor times the champion's 90th percentile."""
    one_per_user: Annotated[bool, Field(exclude_if=lambda once: once)] = True
    """Count only the first request of each ``user``, because a user's requests all go to one model and are
    similar. ``false`` is for a project with a few users who ask about everything."""
    deadline_seconds: Annotated[PositiveInt, Field(exclude_if=lambda seconds: seconds == 7 * DAY)] = 7 * DAY
    """A candidate that is still undecided this long after the stage began is retired."""


class ShadowPolicy(StagePolicy):
    enabled: bool = False
    """Send a candidate copies of requests before it answers any. This also holds for the first model, while
    the base model answers."""
    percent: Annotated[Percent, Field(exclude_if=lambda percent: percent == 100)] = 100
    """Percentage of the answered requests that are copied."""
    max_label_changes: Annotated[Fraction, Field(exclude_if=lambda share: share == 0.5)] = 0.5
    """Largest tolerated share of questions to which the candidate gives another label than the champion."""


class CanaryPolicy(StagePolicy):
    enabled: bool = True
    percent: Percent = 20
    """Percentage of the requests that the canary answers."""


class UndecidedPolicy(Strict):
    """What becomes of a candidate whose evaluation was undecided."""

    enabled: bool = True
    """Let production decide: the candidate gets copies of requests in shadow, also where `shadow` is not
    enabled, and goes on only if its answers are shown to be good enough. `false`: it waits for a command or
    a newer version."""
    requests: PositiveInt = 2000
    """A candidate of which this is not shown after so many copied requests is retired, unless people were
    asked to compare answers: they have until `days`."""
    days: Annotated[PositiveInt, Field(le=365)] = 7
    """A candidate of which this is not shown after so many days is retired."""


class RolloutSpec(Strict):
    """The stages of a candidate that passed its evaluation. Without a champion the candidate goes straight to
    production, unless `shadow` is enabled: then it goes through the stages while the base model answers."""

    shadow: ShadowPolicy = ShadowPolicy()
    canary: CanaryPolicy = CanaryPolicy()
    undecided: Annotated[UndecidedPolicy, Field(exclude_if=lambda policy: policy == UndecidedPolicy())] = (
        UndecidedPolicy()
    )
    guard_seconds: Annotated[int, Field(ge=0, exclude_if=lambda seconds: seconds == DAY)] = DAY
    """How long a model is watched after its trial brought it to production. If it is shown to do worse there
    than the former champion did during the trial, the former champion takes over again. 0: not watched."""
