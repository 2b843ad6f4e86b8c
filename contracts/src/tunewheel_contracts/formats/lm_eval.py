"""A project's settings for tasks of lm-evaluation-harness by which its models are judged."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.fields import PositiveInt, RelativePath, Sha256, Strict
from tunewheel_contracts.formats.data_quality import BENCHMARKS


class LmEvalTask(Strict):
    """A task of lm-evaluation-harness. Its metrics are called ``lm_eval.<task>.<metric>`` in criteria."""

    task: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    """The task's name, as ``task:`` in its YAML."""
    path: RelativePath
    """The folder below ``benchmarks/`` in the object store that holds the YAML and its data."""
    sha256: Sha256
    """Hash of the YAML's content and the data, as ``tunewheel admin lm-eval FOLDER`` prints it. Through it
    both are part of the criteria's hash."""
    limit: PositiveInt | None = None
    """Use only this many questions, from the first; null: all."""
    chat_template: bool = False
    """true: each prompt is sent as a user message, with the model's chat template."""

    def check_place(self, field: str) -> None:
        """Refuse a folder outside ``benchmarks/``; see ``Benchmark.check_place``.

        Raises:
            InvalidSpec: with ``field``.
        """
        if not self.path.startswith(BENCHMARKS):
            raise InvalidSpec(field=field, reason=f"{self.path} is not below {BENCHMARKS}; move it there")
