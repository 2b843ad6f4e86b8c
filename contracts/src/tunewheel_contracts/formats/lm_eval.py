"""What a project says about tasks of lm-evaluation-harness that its models are judged by."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.fields import PositiveInt, RelativePath, Sha256, Strict
from tunewheel_contracts.formats.data_quality import BENCHMARKS


class LmEvalTask(Strict):
    """A task that lm-evaluation-harness asks; criteria name its figures ``lm_eval.<task>.<metric>``."""

    task: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    """Its name, as ``task:`` in its YAML."""
    path: RelativePath
    """The folder below ``benchmarks/`` of the object store that holds the YAML and its data."""
    sha256: Sha256
    """Of the YAML's content and the data, as ``tunewheel lm-eval FOLDER`` prints it: so both stand in the
    criteria's hash."""
    limit: PositiveInt | None = None
    """Ask the first so many questions only; null: all."""
    chat_template: bool = False
    """True: each prompt is asked as a user's message, by the model's chat template."""

    def check_place(self, field: str) -> None:
        """Refuse a folder that lies elsewhere in the store; see ``Benchmark.check_place``.

        Raises:
            InvalidSpec: with ``field``.
        """
        if not self.path.startswith(BENCHMARKS):
            raise InvalidSpec(field=field, reason=f"{self.path} is not below {BENCHMARKS}; move it there")
