"""Keeps the last known contents of a watched folder on disk, so that the next watch sees what was deleted."""

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
    """The last known contents of a watched folder cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The names of the documents of one folder that were published for one project. The log cannot tell them:
    its document ids do not name the folder, and others publish to the project too."""

    path: Path

    @classmethod
    def of(cls, below: Path, folder: Path, project: str) -> Self:
        """Return the record of that watch. Its file is in ``below``, a folder of one wheel."""
        return cls(below / f"{content_id('watch', [str(folder.resolve()), project])}.json")

    def read(self) -> frozenset[str]:
        """Return the names; an empty set if no watch ran before.

        Raises:
            WatchForgotten: the file exists but cannot be read.
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
        """Replace the remembered names by ``names``, atomically.

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
