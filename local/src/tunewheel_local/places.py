"""The folders of one wheel below ``var/``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Var:
    """The folder of one wheel on this machine (``--var``, ``TUNEWHEEL_VAR``, else ``./var``)."""

    root: Path

    @classmethod
    def at(cls, root: Path | None = None) -> Var:
        return cls((root or Path(os.environ.get("TUNEWHEEL_VAR", "var"))).expanduser().resolve())

    def __post_init__(self) -> None:
        self.kafka, self.logs, self.store = self.root / "kafka", self.root / "logs", self.root / "store"
        self.work = self.root / "work"
        """Files of running jobs, such as checkpoints."""
        self.watches = self.root / "watches"
        """The last known contents of watched folders."""
        self.identity = self.root / "identity"
        """The folder of the wheel's secrets, which only its owner can read."""
        self.keys_file = self.identity / "keys.yaml"
        """The file with the hashes of the API keys that the wheel's services accept."""
        self.contexts = self.root / "contexts.yaml"
        """The context of the wheel that runs on the folder, for its commands and clients."""
        self.demo_mark = self.root / ".tunewheel-demo"
        """Marks the folder of a demo, which the next demo may delete."""
        self.precision = self.root / "precision"
        """The file with the precision in which the folder's models are judged and served. Missing: that of
        the services' settings."""
        self.run_file = self.root / "run.json"

    @property
    def store_url(self) -> str:
        return self.store.as_uri()
