"""Which certificates a client is made with, and how it leaves a broker that is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tunewheel_runtime.kafka import InvalidSetting, client_options, stop_in_full
from tunewheel_runtime.kafka_settings import KafkaSettings

PEM = serialization.Encoding.PEM
PASSWORD = "hunter-two"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A certificate that signs itself, its key open and encrypted, another key, and no PEM file."""
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ingest")]), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    form = serialization.PrivateFormat.PKCS8
    closed = serialization.BestAvailableEncryption(PASSWORD.encode())
    texts = {
        "certificate": builder.sign(key, hashes.SHA256()).public_bytes(PEM),
        "key": key.private_bytes(PEM, form, serialization.NoEncryption()),
        "encrypted": key.private_bytes(PEM, form, closed),
        "other": other.private_bytes(PEM, form, serialization.NoEncryption()),
        "text": b"no PEM",
    }
    for called, text in texts.items():
        (tmp_path / called).write_bytes(text)
    return {called: tmp_path / called for called in (*texts, "missing")}


def options(files: dict[str, Path], **told: str) -> dict[str, Any]:
    found = {field: value if "password" in field else files[value] for field, value in told.items()}
    return client_options(KafkaSettings.model_validate({"security_protocol": "SSL", **found}))


def test_a_certificate_and_its_key_are_used(files: dict[str, Path]) -> None:
    opened = options(
        files, ssl_certfile="certificate", ssl_keyfile="encrypted", ssl_keyfile_password=PASSWORD
    )
    plain = options(files, ssl_certfile="certificate", ssl_keyfile="key", ssl_cafile="certificate")
    assert plain["ssl_context"].cert_store_stats()["x509"] == 1, "the authority that is named, and no other"
    assert plain["ssl_context"].check_hostname
    assert PASSWORD not in repr(opened)


@pytest.mark.parametrize(
    ("told", "field", "reason"),
    [
        (("missing", None, None, None), "ssl_cafile", "cannot be read: No such file"),
        (("text", None, None, None), "ssl_cafile", "is not a PEM file of certificates"),
        ((None, "missing", "key", None), "ssl_certfile", "cannot be read: No such file"),
        ((None, "certificate", "missing", None), "ssl_keyfile", "cannot be read: No such file"),
        ((None, "certificate", "other", None), "ssl_keyfile", "is not the key of ssl_certfile"),
        ((None, "text", "key", None), "ssl_keyfile", "is not a usable PEM file"),
        ((None, "certificate", "encrypted", None), "ssl_keyfile", "set ssl_keyfile_password"),
        (
            (None, "certificate", "encrypted", "no"),
            "ssl_keyfile",
            "cannot be opened with ssl_keyfile_pass",
        ),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(
    told: tuple[str | None, ...], field: str, reason: str, files: dict[str, Path]
) -> None:
    names = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_keyfile_password")
    with pytest.raises(InvalidSetting) as wrong:
        options(files, **{name: value for name, value in zip(names, told, strict=True) if value})
    assert wrong.value.field == field
    assert reason in wrong.value.reason


class Consumer:
    """Stops as aiokafka's does in an outage: what it cancels comes out of the first call."""

    def __init__(self) -> None:
        self.fetches = [asyncio.create_task(asyncio.sleep(3_600)) for _ in range(2)]

    async def stop(self) -> None:
        while self.fetches:
            fetch = self.fetches.pop()
            fetch.cancel()
            await fetch


async def test_stopping_a_consumer_in_an_outage_does_not_count_as_cancelled() -> None:
    consumer = Consumer()
    await stop_in_full(consumer.stop)
    assert consumer.fetches == []


async def test_a_task_cancelled_while_it_stops_a_consumer_stays_cancelled() -> None:
    entered = asyncio.Event()

    async def stop() -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stop_in_full(stop))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
