"""The teacher: a model behind an OpenAI-compatible endpoint that a project's spec names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewheel_contracts.formats.example_formats import TeacherSpec
from tunewheel_runtime.chat import ChatAway, open_chat

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONCURRENT = 4
"""How many questions a teacher is asked at the same time."""
GIVE_UP_AFTER = 3
"""After so many failed requests to a teacher the remaining questions are not asked."""
TeacherAway = ChatAway


def open_teacher(teacher: TeacherSpec) -> AsyncOpenAI:
    """Return a client, which the caller closes. Check the host with ``AllowedSources`` first."""
    return open_chat(teacher.base_url, teacher.api_key_env, timeout_seconds=teacher.timeout_seconds)
