"""What people say of answers, weighed so that nobody alone can say much.

A user has one vote a day. A key can invent users, so the key is bounded too: of a window's ratings it may
give twice the share that it had under the version before, and ``STRANGER`` of a window where it had none.
Keys change: while none that rates may go on, those that are refused gain standing day by day, so that nobody
is deaf for good. A key that floods beside the others, or for some hours, stays a stranger.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Family, Opening, State
from tunewheel_monitor.detectors.rates import FEWEST, Rise
from tunewheel_monitor.detectors.votes import bucket

STRANGER = 0.05
MOST_KEYS = 32
LASTING = timedelta(days=1)
GAINED = 0.1
"""Of the standard: what refused keys gain at once."""
MOST_VOTERS = 500
"""Users whose vote of the day is remembered; those who come later that day have none."""


class Votes(Rise):
    """A rate among the ratings that count."""

    family: Family = "feedback"
    standard = "votes on the version before, while it was healthy"

    def open(self, opening: Opening) -> State:
        return super().open(opening) | {"voters": opened(opening)}

    def admits(self, state: State, item: InferenceScored) -> bool:
        return not item.overrides and counts(state["voters"], item)


def opened(opening: Opening) -> State:
    """Begin with the keys that rated under the version before."""
    before = (opening.predecessor or {}).get("voters")
    known = (
        before["fresh"] if before and sum(before["fresh"].values()) >= FEWEST else (before or {}).get("keys")
    )
    return {
        "day": "",
        "voted": [],
        "keys": dict(known or {}),
        "fresh": {},
        "given": {},
        "refused": {},
        "since": "",
        "window": opening.drift.window,
    }


def counts(voters: State, item: InferenceScored) -> bool:
    """Whether a rating counts; if so, its user and its key gave one more."""
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
    """Take note of a rating that its key may not give. Once a window of them came in a row, for a day or
    more, the keys that might go on are gone: the refused ones join the standard, and a window begins."""
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
    day = item.at.date().isoformat()
    if day > voters["day"]:  # what comes late counts for the day that is on
        voters["day"], voters["voted"] = day, []
    name = int(bucket(item.user or ""))
    if name in voters["voted"] or len(voters["voted"]) >= MOST_VOTERS:
        return False
    voters["voted"].append(name)
    return True


def _end_window(voters: State) -> None:
    """A share of a window is one of so many ratings, however many windows of answers those take. Without a
    version before, the first window's keys are the standard."""
    voters["fresh"] = _joined(voters["fresh"], voters["given"])
    if sum(voters["keys"].values()) < FEWEST:
        voters["keys"] = dict(voters["fresh"])
    voters["given"] = {}


def _joined(before: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    """Return both added up, of the keys with most."""
    both = {key: before.get(key, 0) + more.get(key, 0) for key in {**before, **more}}
    kept = sorted(both, key=lambda key: (-both[key], key))[:MOST_KEYS]
    return {key: both[key] for key in kept}
