"""The cache folder, and the folders of one wheel below ``var/``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def cache_dir() -> Path:
    """Return ``TUNEWHEEL_CACHE_DIR``, or the platform's cache folder for Tunewheel."""
    configured = os.environ.get("TUNEWHEEL_CACHE_DIR")
    if configured:
        return Path(configured).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tunewheel")


@dataclass(frozen=True, slots=True)
class Var:
    """The folder of one wheel on this machine (``--var``, ``TUNEWHEEL_VAR``, else ``./var``)."""

    root: Path

    @classmethod
    def at(cls, root: Path | None = None) -> Var:
        return cls((root or Path(os.environ.get("TUNEWHEEL_VAR", "var"))).expanduser().resolve())

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def work(self) -> Path:
        """Files of running jobs, such as checkpoints."""
        return self.root / "work"

    @property
    def watches(self) -> Path:
        """The last known contents of watched folders."""
        return self.root / "watches"

    @property
    def identity(self) -> Path:
        """The folder of the wheel's secrets, which only its owner can read."""
        return self.root / "identity"

    @property
    def keys_file(self) -> Path:
        """The file with the hashes of the API keys that the wheel's services accept."""
        return self.identity / "keys.yaml"

    @property
    def contexts(self) -> Path:
        """The context of the wheel that runs on the folder, for its commands and clients."""
        return self.root / "contexts.yaml"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def store_url(self) -> str:
        return self.store.as_uri()

    @property
    def demo_mark(self) -> Path:
        """Marks the folder of a demo, which the next demo may delete."""
        return self.root / ".tunewheel-demo"

    @property
    def precision(self) -> Path:
        """The file with the precision in which the folder's models are judged and served. Missing: that of
        the services' settings."""
        return self.root / "precision"

    @property
    def run_file(self) -> Path:
        return self.root / "run.json"
