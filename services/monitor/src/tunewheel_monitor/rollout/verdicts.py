"""The verdict on a trial, by bounds that hold at any time.

- *Failed*: a figure's lower end is above 0, and its observed rise is at least half the margin. The candidate
is worse
  than the champion at the same time. The probability that an equal candidate fails, over all figures, is
  ``ALPHA``.
- *Passed*: every required figure has its upper end below the margin, so the candidate is not worse by more
than that.
  The probability that a candidate which is worse by the margin passes is ``BETA``. The observed shares must
  also keep the spec's limits, and both sides must have ``min_requests``. A model whose evaluation was
  undecided must be shown to answer as well as its trial asks (``to_show``, with ``QUALITY_BETA``).
- *No gain*: a model whose evaluation was undecided is shown to be better by less than the margin, and is not
  shown to be as good as its trial asks. It makes room: an equal model would keep its place until the
  deadline. A model that is better by the margin ends so with the probability ``NO_GAIN_BETA``.
- Neither: the trial goes on until its deadline.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunewheel_contracts.events.production import RolloutBound
from tunewheel_contracts.formats.rollout_spec import ShadowPolicy, StagePolicy

from tunewheel_monitor.rollout import comparisons
from tunewheel_monitor.rollout.counting import GUARDED, Trial
from tunewheel_monitor.rollout.figures import FIGURES, Figure, Side, is_timed, rise, share
from tunewheel_monitor.rollout.sequences import Counts, is_above, is_below, lower, shares, upper

ALPHA = 0.01
"""The probability that an equal candidate ever fails, over all figures."""
BETA = 0.05
"""The probability that a candidate which is worse by the margin in one figure ever passes."""
EACH = ALPHA / (len(FIGURES) + 1)
"""Bonferroni's share of one figure. One more is that of ``comparisons``."""
NO_GAIN = "no gain"
"""``decided_by`` of a trial that ended since its model is no better."""
WORDS = {
    "errors": "failed requests",
    "incidents": "requests that the engine failed",
    "invalid": "invalid outputs",
    "latency": "slow answers",
    "first_token": "answers that begin late",
    "feedback": "thumbs down",
    "labels": "labels that people corrected",
}
NAMES = {
    "errors": "error_rate",
    "invalid": "invalid_rate",
    "latency": "slow_rate",
    "first_token": "late_rate",
    "feedback": "thumbs_down_rate",
    "labels": "other_label_rate",
}
ALWAYS_TOLD = ("errors", "invalid")

Verdict = dict[str, Any]
"""``verdict``, ``decided_by`` and ``reasons``."""


def decide(trial: Trial, policy: StagePolicy, *, alone: bool) -> Verdict | None:
    """Return the verdict by the counts so far; None: it is neither failed nor passed yet."""
    harmed = [name for name, figure in _seen(trial) if _is_harmed(name, figure, policy, alone=alone)]
    state, to_show = trial["comparisons"], trial["to_show"]
    end = comparisons.end(state, to_show, margin=policy.margin, alpha=EACH)
    if end == "failed":
        harmed.append(comparisons.NAME)
    if harmed:
        decided_by = "incidents" if harmed == ["incidents"] else "bounds"
        return _verdict("failed", decided_by, [_worse(trial, name, policy, alone=alone) for name in harmed])
    if end == "no gain":
        reason = f"answers are better by less than {policy.margin:.1%} of questions, or by nothing"
        return _verdict("failed", NO_GAIN, [reason, comparisons.sentence(state)])
    if end is None or any(not holds for holds in _conditions(trial, policy, alone=alone)):
        return None
    candidate, champion = summary(trial, "candidate"), summary(trial, "champion")
    reason = (
        f"{trial['candidate']['requests']} requests: {candidate['error_rate']:.1%} errors, "
        f"{candidate['invalid_rate']:.1%} invalid"
    )
    beside = "" if alone else f" (champion {champion['invalid_rate']:.1%})"
    within = f"; not worse by {policy.margin:.1%} in anything that was compared"
    answers = [comparisons.sentence(state)] if state["values"] or to_show is not None else []
    return _verdict("passed", "bounds", [reason + beside + within, *answers])


def undecided(trial: Trial, policy: StagePolicy, ended: str, *, alone: bool) -> Verdict:
    """Return the verdict of a trial that ``ended`` says is over, with the conditions of a pass that were not
    shown."""
    return _verdict("failed", "deadline", [ended, *_obstacles(trial, policy, alone=alone)])


def decide_guard(trial: Trial, policy: StagePolicy) -> Verdict | None:
    """Return the verdict on a model in production; None: it is not shown to be worse than the champion was in
    the trial. Half of the error probability is used for the champion's share, which is an estimate."""
    for name, figure in _seen(trial):
        if name not in GUARDED:
            continue
        before, limit = _guard_ends(trial, name, policy)
        rose = share(figure, "candidate") - before >= policy.margin / 2
        if rose and is_above(figure["counts"], limit, EACH / 2):
            reason = (
                f"{_words(name)} in production: {share(figure, 'candidate'):.1%} of "
                f"{figure['candidate'][1]}, after {before:.1%} of the champion before (at most {limit:.1%}, "
                "as far as its trial could tell)"
            )
            return _verdict("failed", "guard", [reason])
    return None


def reference(trial: Trial) -> dict[str, tuple[float, float]]:
    """Return, by figure, the champion's share in a trial and the upper end of its confidence sequence. The
    labels of copies are left out: they were compared with the champion's labels, not with people's."""
    told: dict[str, tuple[float, float]] = {}
    for name in GUARDED:
        hits, of = trial["figures"][name]["champion"]
        if of and not (name == "labels" and trial["stage"] == "shadow"):
            told[name] = (hits / of, upper(shares(round(hits), of), EACH / 2))
    return told


def bounds(trial: Trial, policy: StagePolicy) -> tuple[RolloutBound, ...]:
    """Return the bounds of the figures that were compared."""
    found = [_bound(trial, name, figure, policy) for name, figure in _seen(trial)]
    if trial["comparisons"]["differ"][1] and not trial["guard"]:
        margin = policy.margin if trial["to_show"] is None else -trial["to_show"]
        found.append(comparisons.bound(trial["comparisons"], margin=margin, alpha=EACH))
    return tuple(found)


def summary(trial: Trial, side: Side) -> dict[str, float]:
    """Return one side's figures that were observed."""
    told = {"requests": float(trial[side]["requests"])}
    for name, figure in trial["figures"].items():
        if name in NAMES and (figure[side][1] or name in ALWAYS_TOLD):
            told[NAMES[name]] = share(figure, side)
    incidents = trial["figures"]["incidents"][side][0]
    return told | ({"engine_incidents": float(incidents)} if incidents else {})


def _is_harmed(name: str, figure: Figure, policy: StagePolicy, *, alone: bool) -> bool:
    floor = _floor(name, policy, alone=alone)
    # A small rise is tolerated by the margin, even if it is significant.
    matters = rise(figure) >= (floor or policy.margin / 2)
    return matters and is_above(figure["counts"], floor, EACH)


def _floor(name: str, policy: StagePolicy, *, alone: bool) -> float:
    """Return the difference above which a figure counts as worse. Without a champion it is the spec's limit.
    For labels of copies it is ``max_label_changes``: another label than the champion's need not be wrong."""
    if alone:
        return {"errors": policy.max_error_rate, "invalid": policy.max_invalid_increase}.get(name, 0.0)
    if name == "labels" and isinstance(policy, ShadowPolicy):
        return policy.max_label_changes
    return 0.0


def _conditions(trial: Trial, policy: StagePolicy, *, alone: bool) -> Iterator[bool]:
    """Yield for each condition of a pass but the answers whether it holds, cheap ones first."""
    yield not _unseen(trial, policy, alone=alone)
    yield not _excesses(trial, policy)
    for name in _required(trial, alone=alone):
        yield is_below(trial["figures"][name]["counts"], policy.margin, BETA)


def _obstacles(trial: Trial, policy: StagePolicy, *, alone: bool) -> list[str]:
    """Return in words which conditions of a pass do not hold."""
    wide = [
        f"{_words(name, policy)} {_at_most(counts)}; at most {policy.margin:.1%} more is tolerated"
        for name in _required(trial, alone=alone)
        if not is_below(counts := trial["figures"][name]["counts"], policy.margin, BETA)
    ]
    return [
        *_unseen(trial, policy, alone=alone),
        *_excesses(trial, policy),
        *wide,
        *comparisons.missing(trial["comparisons"], trial["to_show"]),
    ]


def _at_most(counts: Counts) -> str:
    return f"may be {upper(counts, BETA):.1%} more" if counts else "were not compared"


def _unseen(trial: Trial, policy: StagePolicy, *, alone: bool) -> list[str]:
    sides = ("candidate",) if alone else ("candidate", "champion")
    return [
        f"the {side} saw {trial[side]['requests']} of at least {policy.min_requests} requests"
        for side in sides
        if trial[side]["requests"] < policy.min_requests
    ]


def _excesses(trial: Trial, policy: StagePolicy) -> list[str]:
    """Return in words which observed shares exceed the spec's limits."""
    figures = trial["figures"]
    seen = {
        "errors": (share(figures["errors"], "candidate"), policy.max_error_rate),
        "invalid": (rise(figures["invalid"]), policy.max_invalid_increase),
    }
    if isinstance(policy, ShadowPolicy):
        seen["labels"] = (share(figures["labels"], "candidate"), policy.max_label_changes)
    return [
        f"{found:.1%}{' more' if name == 'invalid' else ''} {_words(name, policy)} is above the tolerated "
        f"{limit:.1%}"
        for name, (found, limit) in seen.items()
        if found > limit
    ]


def _required(trial: Trial, *, alone: bool) -> list[str]:
    """Return the figures that a pass requires: errors; validity, unless clients replaced parts of the prompt
    in all answers; latency, if both sides were measured."""
    tally, figures = trial["candidate"], trial["figures"]
    is_theirs = tally["answers"] > 0 and tally["answers"] == tally["overridden"]
    required = ["errors"] + ([] if is_theirs else ["invalid"])
    return required + (["latency"] if not alone and is_timed(figures["latency"]) else [])


def _seen(trial: Trial) -> list[tuple[str, Figure]]:
    return [(name, figure) for name, figure in trial["figures"].items() if figure["counts"]]


def _bound(trial: Trial, name: str, figure: Figure, policy: StagePolicy) -> RolloutBound:
    champion, margin = share(figure, "champion"), policy.margin
    low, high = lower(figure["counts"], EACH), upper(figure["counts"], BETA)
    if trial["guard"]:
        champion, limit = _guard_ends(trial, name, policy)
        low, high = low - limit, high - champion
    elif name == "labels" and isinstance(policy, ShadowPolicy):
        margin = policy.max_label_changes
    return RolloutBound(
        figure=name,
        candidate=share(figure, "candidate"),
        champion=champion,
        low=low,
        high=high,
        margin=margin,
        pairs=figure["pairs"],
    )


def _guard_ends(trial: Trial, name: str, policy: StagePolicy) -> tuple[float, float]:
    if trial["reference"] is None:  # its trial had no champion either
        limit = {"errors": policy.max_error_rate, "invalid": policy.max_invalid_increase}.get(name, 1.0)
        return limit, limit
    share_then, limit = trial["reference"].get(name, (0.0, 1.0))
    return share_then, limit


def _worse(trial: Trial, name: str, policy: StagePolicy, *, alone: bool) -> str:
    if name == comparisons.NAME:
        return comparisons.sentence(trial["comparisons"], EACH)
    bound = _bound(trial, name, trial["figures"][name], policy)
    if alone:
        limit = _floor(name, policy, alone=alone)
        return (
            f"{_words(name, policy)}: {bound.candidate:.1%} of {bound.pairs} ({bound.low:.1%} at least); "
            f"at most {limit:.1%} is tolerated"
        )
    return (
        f"{_words(name, policy)}: {bound.candidate:.1%} against {bound.champion:.1%} of the champion's, "
        f"{rise(trial['figures'][name]):+.1%} ({bound.low:+.1%} at least) over {bound.pairs} "
        "comparisons"
    )


def _words(name: str, policy: StagePolicy | None = None) -> str:
    if name == "labels" and isinstance(policy, ShadowPolicy):
        return "labels other than the champion's"
    return WORDS[name]


def _verdict(verdict: str, decided_by: str, reasons: list[str]) -> Verdict:
    return {"verdict": verdict, "decided_by": decided_by, "reasons": reasons}
