"""Counts people's ratings so that no user and no API key alone can raise an alarm.

A user has one vote a day, or one in some two thousand votes of a busy day. The holder of a key can invent
users, so the key is limited too: to twice the share of a window's ratings that it had under the previous
version, or to the share ``STRANGER`` if it had none. Keys may be replaced. So if for a day or more every
rating comes from a key beyond its limit, these keys gain a share, and the detector does not become deaf. A
key that floods while other keys rate, or only for some hours, gains none.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Family, Opening, State
from tunewheel_monitor.detectors.rates import FEWEST, Rise
from tunewheel_monitor.detectors.votes import bucket, is_first

STRANGER = 0.05
MOST_KEYS = 32
LASTING = timedelta(days=1)
GAINED = 0.1
"""The share of the standard that refused keys gain at once."""
MOST_MARKS = 2_048
"""After so many users' votes they may all vote again on the same day. If late users had no vote instead, a
large project would be deaf until midnight. At this number, a new user has no vote one time in four, because
the mark of another is set."""


class Votes(Rise):
    """A detector of a rate among the ratings that count."""

    family: Family = "feedback"
    standard = "votes on the version before, while it was healthy"

    def open(self, opening: Opening) -> State:
        return super().open(opening) | {"voters": opened(opening)}

    def admits(self, state: State, item: InferenceScored) -> bool:
        return not item.overrides and counts(state["voters"], item)


def opened(opening: Opening) -> State:
    """Return the initial state, with the keys that rated under the previous version."""
    before = (opening.predecessor or {}).get("voters")
    known = (
        before["fresh"] if before and sum(before["fresh"].values()) >= FEWEST else (before or {}).get("keys")
    )
    return {
        "day": "",
        "marks": [],
        "keys": dict(known or {}),
        "fresh": {},
        "given": {},
        "refused": {},
        "since": "",
        "window": opening.drift.window,
    }


def counts(voters: State, item: InferenceScored) -> bool:
    """Return whether a rating counts. If so, record it for its user and its key."""
    key = bucket(item.client or "")
    if voters["given"].get(key, 0) >= share_of(voters, key) * voters["window"]:
        _refuse(voters, key, item.at)
        return False
    voters["refused"], voters["since"] = {}, ""
    if item.user is not None and not _first_today(voters, item):
        return False
    voters["given"][key] = voters["given"].get(key, 0) + 1
    if sum(voters["given"].values()) >= voters["window"]:
        _end_window(voters)
    return True


def share_of(voters: State, key: str) -> float:
    """Return the largest share of a window's ratings that a key may give."""
    rated = sum(voters["keys"].values())
    return 1.0 if rated < FEWEST else max(STRANGER, 2 * voters["keys"].get(key, 0) / rated)


def _refuse(voters: State, key: str, at: datetime) -> None:
    """Record a rating beyond its key's limit. After a window of such ratings in a row, over a day or more,
    the other keys are assumed to be gone: the refused keys join the standard, and a new window begins."""
    refused: dict[str, int] = voters.setdefault("refused", {})
    if not refused:
        voters["since"] = at.isoformat()
    if key in refused or len(refused) < MOST_KEYS:
        refused[key] = refused.get(key, 0) + 1
    lasted = at - datetime.fromisoformat(voters["since"])
    if lasted >= LASTING and sum(refused.values()) >= voters["window"]:
        gain = GAINED * sum(voters["keys"].values()) / sum(refused.values())
        gained = {key: round(gain * count, 3) for key, count in refused.items()}
        voters["keys"] = _joined(voters["keys"], gained)
        voters["refused"] = {}
        _end_window(voters)


def _first_today(voters: State, item: InferenceScored) -> bool:
    day, marks = item.at.date().isoformat(), voters.get("marks", [])  # earlier releases kept a list of users
    if day > voters["day"] or sum(map(int.bit_count, marks)) >= MOST_MARKS:  # a late rating counts for today
        marks = []
    voters["day"], voters["marks"] = max(day, voters["day"]), marks
    return is_first(marks, item.user)


def _end_window(voters: State) -> None:
    """End a window of ratings. It has as many ratings as a window has answers, and may span many windows of
    answers. Without a previous version, the keys of the first window are the standard."""
    voters["fresh"] = _joined(voters["fresh"], voters["given"])
    if sum(voters["keys"].values()) < FEWEST:
        voters["keys"] = dict(voters["fresh"])
    voters["given"] = {}


def _joined(before: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    """Return the sum of both by key, for the keys with the most ratings."""
    both = {key: before.get(key, 0) + more.get(key, 0) for key in {**before, **more}}
    kept = sorted(both, key=lambda key: (-both[key], key))[:MOST_KEYS]
    return {key: both[key] for key in kept}
