"""What reads a Modelfile."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

Conversations = Sequence[Sequence[Mapping[str, str]]]
PROGRAM = Path(__file__).with_name("ollama")


@dataclass(frozen=True)
class Read:
    """``commands``: by name, without quotes. ``rendered``: each conversation, or the error."""

    commands: dict[str, str]
    rendered: list[str]


@pytest.fixture
def in_ollama(tmp_path: Path) -> Callable[[str, Conversations], Read]:
    """Read a Modelfile as Ollama does."""
    if shutil.which("go") is None:
        pytest.skip("Go is not on the PATH")

    def read(modelfile: str, conversations: Conversations) -> Read:
        path = tmp_path / "read" / "Modelfile"
        path.parent.mkdir()
        path.write_text(modelfile, "utf-8")
        done = subprocess.run(
            ["go", "run", ".", str(path)], cwd=PROGRAM, input=json.dumps(conversations),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return Read(**json.loads(done.stdout))

    return read


@pytest.fixture
def spoilt_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let merged models answer otherwise than their adapters."""
    from tunewheel_train.exporting import merging

    original = merging._merged

    def spoilt(*arguments):
        model = original(*arguments)
        model.get_input_embeddings().weight.data += 0.5
        return model

    monkeypatch.setattr(merging, "_merged", spoilt)
