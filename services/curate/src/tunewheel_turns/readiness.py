"""Whether an alarm has what its next turn needs: labels, or a change since the last try."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from math import ceil

from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.drift_spec import Follows, TurnPolicy
from tunewheel_wheel.turn import Turn

from tunewheel_turns.state import GOOD, MACHINERY, Alarm, Labels, State, outcome

RETRIES = 3
"""How many turns of an alarm are tried again by themselves after the machinery failed them in a row. Then a
person must look: a fault that comes back must not cost GPU hours for ever."""
ONE_SIDED = 2
"""A turn whose labels are all about some of the clusters waits for the others, until it has this many times
the labels that it needs."""
ALL_IN_SCOPE = Labels()
BUILT: dict[str, Follows] = {"collect_labels": "collect_labels", "retrain": "retrain"}
"""The actions of alarms for which a version is built."""


def to_mend(state: State) -> list[Alarm]:
    """Return the open alarms for which a version should be built, now or later, oldest first: no alarm all
    of whose prompts people called out of scope."""
    return [
        alarm
        for alarm in state.alarms
        if follows(state.drift.turns, alarm) in BUILT and answers_to(state, alarm).in_scope > 0
    ]


def answers_to(state: State, alarm: Alarm) -> Labels:
    return state.answers.get(alarm.name, ALL_IN_SCOPE)


def follows(policy: TurnPolicy, alarm: Alarm) -> Follows:
    """Return what ``alarm`` leads to: the spec's ``follow`` for its detector, family or action, else the
    default.

    ``collect_labels`` needs a place near which labels count; without one a person must investigate. The
    family's entry does not apply to an alarm that asks for documents: training writes no documents.
    """
    family = () if alarm.action == "update_documents" else (alarm.family,)
    keys = [key for key in (alarm.detector, *family, alarm.action) if key in policy.follow]
    what = policy.follow[keys[0]] if keys else BUILT.get(alarm.action, "investigate")
    return "investigate" if what == "collect_labels" and not alarm.places else what


def lasts_from(policy: TurnPolicy, alarm: Alarm) -> datetime:
    return alarm.at + timedelta(seconds=policy.alarm_seconds)


def is_ready(state: State, alarm: Alarm) -> bool:
    """Return whether an alarm of ``to_mend`` lacks nothing for its next turn."""
    if needs_a_person(state, alarm):
        return False
    if collects_labels(state, alarm):
        labels, needed = state.labelled.get(alarm.name, 0), labels_needed(state, alarm)
        lacks = any(answers_to(state, alarm).lacking.values())
        return labels >= needed and (not lacks or labels >= ONE_SIDED * needed)
    # New records may mend again what they mended before the alarm was reopened.
    tried = [turn for turn in _tries(state, alarm) if turn.request.time >= alarm.at or outcome(turn) != GOOD]
    return not tried or _trains_otherwise(state, tried)


def collects_labels(state: State, alarm: Alarm) -> bool:
    return follows(state.drift.turns, alarm) == "collect_labels"


def labels_needed(state: State, alarm: Alarm) -> int:
    """Return how many labels the next turn for ``alarm`` needs: ``min_labels`` more after each try, so that
    the same data is not tried twice. A changed training spec allows one more try with the same labels. A
    person's command that gave no version is no try, nor is a failure of the machinery (``_tries``). Prompts
    out of scope lower the number."""
    tried = [turn for turn in _tries(state, alarm) if turn.dataset_id or is_drift(turn)]
    again = bool(tried) and _trains_otherwise(state, tried)
    whole = state.drift.turns.min_labels * (len(tried) + (0 if again else 1))
    return ceil(whole * answers_to(state, alarm).in_scope)


def needs_a_person(state: State, alarm: Alarm) -> bool:
    """Return whether a service must be mended before another turn of ``alarm``: the latest one has no outcome
    although it is not in flight any more, so another turn would wait for the same service; or the machinery
    failed as often as it is retried, with the same training spec."""
    turns, failed = state.turns_for(alarm), failed_in_a_row(state, alarm)
    if turns and not outcome(turns[-1]):
        return True
    return len(failed) > RETRIES and not _trains_otherwise(state, turns)


def failed_in_a_row(state: State, alarm: Alarm) -> list[Turn]:
    """Return the latest turns of ``alarm`` that all failed by the machinery, latest first."""
    return list(takewhile(lambda turn: outcome(turn) in MACHINERY, reversed(state.turns_for(alarm))))


def _tries(state: State, alarm: Alarm) -> list[Turn]:
    """Return the turns of ``alarm`` that got a verdict about the data."""
    return [turn for turn in state.turns_for(alarm) if outcome(turn) and outcome(turn) not in MACHINERY]


def _trains_otherwise(state: State, tried: Sequence[Turn]) -> bool:
    """Return whether the training spec changed since the last of ``tried``."""
    answer = (tried[-1].version or tried[-1].course.event).data
    if (training := getattr(answer, "training_sha256", None)) is None:  # events of earlier releases
        return getattr(answer, "spec_sha256", state.spec_sha256) != state.spec_sha256
    return training != state.training_sha256


def is_drift(turn: Turn) -> bool:
    return turn.request.data.reason is BuildReason.DRIFT
