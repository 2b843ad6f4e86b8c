"""The prompts of production that wait for a trusted answer, and how answers say what they answer."""

from __future__ import annotations

from tunewheel_contracts.fields import Frozen, Slug, SourceId, Text
from tunewheel_contracts.formats.dataset import ChatMessage

LABEL_REQUEST = "label_request"
"""The attribute of an example that answers a ``labels.requested``: its ``request_id``."""
TAUGHT_BY = "taught_by"
"""The attribute of an example that a teacher answered: the teacher's model. Nobody validated it."""


class LabelPrompt(Frozen):
    """One question that production was asked. The example that answers it is named by ``completion_id``: an
    erasure of the completion takes the example too, and a second answer takes the place of the first."""

    completion_id: SourceId
    customer: SourceId | None = None
    """Whose question it was: the ``group`` of the example, by which an erasure finds it."""
    messages: tuple[ChatMessage, ...] = ()
    """The conversation up to the question, redacted. Empty: it was erased."""
    output: Text = ""
    """What the model answered, redacted: for people to see, never to be learnt from."""

    @property
    def is_erased(self) -> bool:
        return not self.messages

    @property
    def turns(self) -> tuple[ChatMessage, ...]:
        """The conversation without what the system was told."""
        return tuple(message for message in self.messages if message.role != "system")

    def emptied(self) -> LabelPrompt:
        """Return what an erasure leaves: the place in the list."""
        return LabelPrompt(completion_id=self.completion_id)


class LabelPrompts(Frozen):
    """``labels.requested`` names where it lies (``prompts``). An erasure empties items and keeps their
    places, so that numbers keep their meaning."""

    project: Slug
    request_id: Slug
    items: tuple[LabelPrompt, ...] = ()
    """Most typical first."""
