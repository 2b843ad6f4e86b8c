"""Keys by which services sign commands, made in a folder of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr
from tunewheel_contracts.event import E, Envelope, KafkaRecord
from tunewheel_runtime.identity.command_keys import SIGNERS, add_key
from tunewheel_runtime.identity.signatures import Signatures
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore


class CommandKeys:
    """A key of every service that signs; ``file`` has the public keys."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "signing-keys.json"
        self.private = {name: add_key(self.file, name) for name in SIGNERS}

    @staticmethod
    def of_wheel(identity: Path) -> Signatures:
        """Return what signs as the console of the wheel whose secrets lie in ``identity``."""
        key = (identity / "signing-key-console").read_text("ascii").strip()
        settings = ServiceSettings(
            signing_keys_file=identity / "signing-keys.json", signing_key=SecretStr(key)
        )
        return Signatures("console", settings, ObjectStore("memory://"))

    def settings(self, service: str) -> dict[str, Any]:
        """Return the settings of ``service``."""
        return {"signing_keys_file": self.file, "signing_key": self.private.get(service)}

    def environment(self, service: str) -> dict[str, str]:
        """Return the same as environment variables."""
        return {
            f"TUNEWHEEL_{name.upper()}": str(said) for name, said in self.settings(service).items() if said
        }

    def of(self, service: str, store: ObjectStore | None = None, **settings: Any) -> Signatures:
        """Return what signs and checks in ``service``."""
        told = {"identity": "required", "store_url": "memory://", **self.settings(service), **settings}
        return Signatures(service, ServiceSettings(**told), store or ObjectStore("memory://"))

    def sealed(self, event: Envelope[Any], *, by: str) -> KafkaRecord:
        """Return upstream data as the door of ``by`` writes it."""
        record = event.to_kafka()
        self.of(by).seal([record])
        return record

    def sign(self, event: Envelope[E], *, by: str = "console") -> Envelope[E]:
        return self.of(by).sign(event)
