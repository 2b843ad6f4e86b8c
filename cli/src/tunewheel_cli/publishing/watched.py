"""What a watch of a folder saw last, on disk: so that the next one knows what was deleted in between."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.identity import content_id


class WatchForgotten(TunewheelError):
    """What a watch saw last cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The documents of one folder, by name, that were published for one project. The log cannot tell them: a
    document's name there says nothing of the folder, and others publish to the project, too."""

    path: Path

    @classmethod
    def of(cls, below: Path, folder: Path, project: str) -> Self:
        """Return the memory of that watch; its file lies in ``below``, a folder of one wheel."""
        return cls(below / f"{content_id('watch', [str(folder.resolve()), project])}.json")

    def read(self) -> frozenset[str]:
        """Return the names; none where no watch ran before.

        Raises:
            WatchForgotten: the file is there and cannot be read.
        """
        try:
            return frozenset(json.loads(self.path.read_text("utf-8"))["documents"])
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise WatchForgotten(
                f"{self.path} cannot be read ({error}); delete it, and `tunewheel withdraw` what was "
                "deleted while nothing watched"
            ) from error

    def write(self, names: Collection[str]) -> None:
        """Remember ``names`` instead of those before, all or none.

        Raises:
            WatchForgotten: the file cannot be written.
        """
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"documents": sorted(names)}, indent=1) + "\n", "utf-8")
            part.replace(self.path)
        except OSError as error:
            raise WatchForgotten(
                f"{self.path} cannot be written ({error}); make room, or choose another folder with --var"
            ) from error
