"""For the tests of all packages: order, what may be skipped, certificates, SmolLM2, what properties are tried
on."""

from __future__ import annotations

import gc
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tunewheel_basemodel.locate import BaseModel
    from xdist.scheduler import LoadFileScheduling

# What `make` fetches and builds lies there. The sources of llama.cpp have tests of their own.
collect_ignore = ["var"]

# Several workers share the cores, and so do the processes that they start: threads that wait for each other
# would take them from other tests. Before anybody imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

# Where identity is not what a test is about, whoever reaches a service may do everything.
os.environ.setdefault("TUNEWHEEL_IDENTITY", "open")

# As in a service, log lines go to standard error: the output of a command holds its result alone.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))

# Rich, where it is installed, shows the local variables of every frame: ten seconds for one error in the log.
structlog.get_config()["processors"][-1].exception_formatter = structlog.dev.plain_traceback

# The synchronous client is generated from the asynchronous one. Other conftest files import it.
runpy.run_path(str(Path(__file__).parent / "client/hatch_build.py"))["write"]()

# Property tests depend neither on how busy the machine is nor on luck: the same code is tried on the same
# examples. `make fuzz` looks for new ones.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("fixed", _UNHURRIED, derandomize=True)
settings.register_profile("fuzz", _UNHURRIED, derandomize=False, max_examples=1_000)
settings.load_profile("fixed")

_FIRST = ("chaos", "e2e", "integration", "model")
_LONG = ("services/train/", "services/eval/", "services/curate/", "services/monitor/", "tests/")
"""Folders whose files take longest: no worker may begin one when the others are nearly done."""
_TRAIN, _CURATE = "services/train/tests/", "services/curate/tests/"
_TOGETHER = (
    ("tests/engine/",),
    ("tests/integration/test_curate.py", "tests/integration/test_versions.py"),
    ("tests/integration/test_eval.py", "tests/integration/test_judged_models.py"),
    tuple(f"services/monitor/tests/test_{name}.py" for name in ("reference", "scoring", "watch")),
    tuple(
        f"{_CURATE}{name}.py"
        for name in (
            "builds/test_answering",
            "builds/test_building",
            "replay/test_mixing",
            "versions/test_versioning",
        )
    ),
    (
        f"{_TRAIN}test_kills.py",
        *(f"{_TRAIN}trainers/test_{name}.py" for name in ("handover", "sharded", "together")),
    ),
)
"""Files that go to one worker: they share an engine, an encoder, a process that others are forked from, or
Great Expectations. To start or import one takes ten seconds of a processor."""
NIGHTLY = (
    "browsers",
    "clients",
    "faults",
    "fencing",
    "gguf",
    "kills",
    "matrices",
    "models",
    "paths",
    "producers",
    "restore",
    "secrets",
    "upgrade",
    "vllm",
)
"""Parts of `make nightly`: tests that take long, and whose guarantee has a smaller test in `make test` or
changes seldom. Such a test is marked ``nightly(part)``."""
_OF_THE_MACHINE = ("this processor", "this machine", "this torch", "vLLM")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", choices=NIGHTLY, help="run this part of the nightly tests alone")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Let the garbage collector never look again at what a file leaves: the libraries that it imported.

    A worker runs hundreds of files, and in the end one look at all of that took it seconds.
    """
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            gc.collect()
            gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let the garbage collector never look at what collecting makes: tests and imported modules, millions of
    objects that stay. It looked through all of them again and again, for half the time that collecting took.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(700, 10, 100)  # after each file all is looked through anyway
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of the part that is asked for, or those of no nightly part, and start what waits
    longest first, so that two workers end together.

    Sorted by tier. A file holds one tier's tests as a rule; where it does not, its longest decides: files
    stay whole, and with them what their tests share.
    """
    part = config.getoption("--nightly")
    config.hook.pytest_deselected(items=[item for item in items if _nightly(item) != part])
    items[:] = [item for item in items if _nightly(item) == part]
    ranks: dict[str, int] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        ranks[file] = min(ranks.get(file, len(_FIRST)), _rank(item))
    items.sort(key=lambda item: (ranks[item.nodeid.partition("::")[0]], not item.nodeid.startswith(_LONG)))


def _rank(item: pytest.Item) -> int:
    return next((n for n, tier in enumerate(_FIRST) if item.get_closest_marker(tier)), len(_FIRST))


def _nightly(item: pytest.Item) -> str | None:
    parts = [mark.args[0] for mark in item.iter_markers("nightly")]
    return "vllm" if "vllm" in parts else next(iter(parts), None)  # vLLM's part has every test of engines


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """Hand out file by file, and ``_TOGETHER`` as if it were one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            shared = (files[0] for files in _TOGETHER if nodeid.startswith(files))
            return next(shared, super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """In CI a test may be skipped for what the processor lacks, not for what was not installed."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1]).removeprefix("Skipped: ")
        if not reason.startswith(_OF_THE_MACHINE):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, which must have what tests need: {reason}"
    return report


class Authority:
    """A certificate authority of this session: PEM files for whoever listens on this machine."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder = folder
        self._make_key = lambda: ec.generate_private_key(ec.SECP256R1())
        self._key = self._make_key()
        self.cafile = folder / "ca.pem"
        """What a client trusts who trusts this authority."""
        self.cafile.write_bytes(self._sign("authority", self._key, names=None))
        self._issued = 0

    def issue(
        self, *names: str, folder: Path | None = None, password: str | None = None
    ) -> tuple[Path, Path]:
        """Write a new key and a certificate for ``names`` (hosts, addresses); return the certificate's file
        and the key's."""
        from cryptography.hazmat.primitives import serialization as pem

        self._issued += 1
        folder = folder or self._folder
        key = self._make_key()
        certfile, keyfile = folder / f"{self._issued}.pem", folder / f"{self._issued}.key"
        certfile.write_bytes(self._sign(str(self._issued), key, names=names))
        closed = pem.BestAvailableEncryption(password.encode()) if password else pem.NoEncryption()
        keyfile.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, closed))
        return certfile, keyfile

    def _sign(self, name: str, key: Any, *, names: tuple[str, ...] | None) -> bytes:
        """Return a certificate in PEM; ``names`` None: the authority's own."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        now, own = datetime.now(UTC), x509.AuthorityKeyIdentifier.from_issuer_public_key
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
            .add_extension(own(self._key.public_key()), critical=False)
        )
        if names is None:
            only_signs = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                 "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False
            )  # fmt: skip
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **only_signs), critical=True)
            builder = builder.add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        else:
            known = [
                x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
                for name in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def smollm2() -> BaseModel:
    """SmolLM2 in the machine's cache of models. It is converted there once for all workers and packages: that
    takes a minute of a processor."""
    from tunewheel_basemodel.locate import locate_base_model
    from tunewheel_contracts.cache import cache_dir

    return locate_base_model("HuggingFaceTB/SmolLM2-135M-Instruct", cache_dir=cache_dir())


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A tiny random model. Threads that wait for each other cost it more than they give."""
    import torch
    from tunewheel_basemodel.locate import locate_base_model
    from tunewheel_testing.tiny import write_tiny_model

    torch.set_num_threads(1)
    path = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return locate_base_model(str(path), cache_dir=path.parent)


@pytest.fixture
def write_adapter(tiny_base: BaseModel, tmp_path: Path) -> Callable[..., Path]:
    """Call it with a name, a seed and options of LoraConfig for a directory with a random adapter."""
    from tunewheel_testing.tiny import write_random_adapter

    return lambda name, **options: write_random_adapter(tiny_base, tmp_path / "adapters" / name, **options)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data beside the checkout; skips the test where it is missing."""
    folder = Path(__file__).resolve().parents[1] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: it is not part of the repository")
    return folder
