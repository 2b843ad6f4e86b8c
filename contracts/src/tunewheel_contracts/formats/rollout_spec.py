"""How a candidate is tried before it answers everything."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Fraction, Percent, PositiveInt, Strict

DAY = 86_400


class StagePolicy(Strict):
    """What a stage must show before it is judged: by bounds that hold however often they are looked at, not
    by a number of requests."""

    min_requests: PositiveInt = 20
    """Candidate and champion each answer so many, at least, before the candidate passes."""
    max_invalid_increase: Fraction = 0.05
    """Largest rise of the invalid-output rate over the champion's that a pass may have seen. Whether it could
    be chance is up to ``margin``."""
    max_error_rate: Fraction = 0.05
    """Largest share of failed requests that a pass may have seen."""
    margin: Annotated[Fraction, Field(gt=0, lt=1, exclude_if=lambda margin: margin == 0.1)] = 0.1
    """A candidate passes once it is shown to be worse than the champion by less than this: in failed
    requests, invalid outputs and slow answers, each a share. The smaller, the more requests that takes: half
    the margin, three to four times as many."""
    max_slowdown: Annotated[float, Field(ge=1, le=100, exclude_if=lambda factor: factor == 1.25)] = 1.25
    """An answer is slow that takes longer than so many times what 90 in 100 of the champion's take."""
    one_per_user: Annotated[bool, Field(exclude_if=lambda once: once)] = True
    """Of the requests that name one ``user``, which all go to one model, the first counts: they are alike.
    ``false`` is for a project of a few users who ask about everything."""
    deadline_seconds: Annotated[PositiveInt, Field(exclude_if=lambda seconds: seconds == 7 * DAY)] = 7 * DAY
    """A candidate that is undecided so long after the stage began retires."""


class ShadowPolicy(StagePolicy):
    enabled: bool = False
    """Show a candidate copies of the requests before it answers any; the first model too, beside the bare
    base."""
    percent: Annotated[Percent, Field(exclude_if=lambda percent: percent == 100)] = 100
    """Of the answered requests, those that are copied."""
    max_label_changes: Annotated[Fraction, Field(exclude_if=lambda share: share == 0.5)] = 0.5
    """Largest tolerated share of questions to which the candidate gives another label than the champion."""


class CanaryPolicy(StagePolicy):
    enabled: bool = True
    percent: Percent = 20
    """Of the requests, those that the canary answers."""


class RolloutSpec(Strict):
    """Stages a passed candidate goes through. Without a champion it goes straight to production, unless
    `shadow` is enabled: then it goes through them beside the bare base."""

    shadow: ShadowPolicy = ShadowPolicy()
    canary: CanaryPolicy = CanaryPolicy()
    guard_seconds: Annotated[int, Field(ge=0, exclude_if=lambda seconds: seconds == DAY)] = DAY
    """How long a model that its trial brought to production is watched on: where it is shown to be worse
    than the champion before it was in the trial, that one takes over again. 0: not at all."""
