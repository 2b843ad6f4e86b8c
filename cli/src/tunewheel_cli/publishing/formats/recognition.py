"""Chooses the form of a file by its first records."""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_cli.publishing.formats.alpaca import ALPACA
from tunewheel_cli.publishing.formats.chat import CHAT
from tunewheel_cli.publishing.formats.form import Form, Record
from tunewheel_cli.publishing.formats.pairs import PAIR
from tunewheel_cli.publishing.formats.preferences import OPENAI_PREFERENCE, PREFERENCE
from tunewheel_cli.publishing.formats.transcripts import TRANSCRIPT

FORMS = (OPENAI_PREFERENCE, PREFERENCE, CHAT, ALPACA, PAIR, TRANSCRIPT)
"""In the order in which they are tried: the more special ones first."""
MAPPABLE = frozenset[str]().union(*(form.keys for form in FORMS))


def recognise(sample: Sequence[Record]) -> Form | None:
    """Return the form that most records of ``sample`` fit; None: there is none."""
    return next((form for form in FORMS if 2 * sum(map(form.fits, sample)) > len(sample)), None)
