"""For the tests of all packages: their order, what may be skipped, and what properties are tried on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

# Where identity is not what a test is about, whoever reaches a service may do everything.
os.environ.setdefault("TUNEWHEEL_IDENTITY", "open")

# Property tests depend neither on how busy the machine is nor on luck: the same code is tried on the same
# examples. `make fuzz` looks for new ones.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("fixed", _UNHURRIED, derandomize=True)
settings.register_profile("fuzz", _UNHURRIED, derandomize=False, max_examples=1_000)
settings.load_profile("fixed")

_FIRST = ("chaos", "e2e", "integration", "model")
_TRAIN = "services/train/tests/"
_TOGETHER = (
    ("tests/engine/",),
    (f"{_TRAIN}test_kills.py", f"{_TRAIN}trainers/test_sharded.py", f"{_TRAIN}trainers/test_together.py"),
)
"""Files that go to one worker: they share an engine, or a process that training is forked from, and to start
either takes ten seconds of a processor."""
_OF_THE_MACHINE = ("this processor", "this machine", "this torch", "vLLM")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what waits longest first, so that two workers end together.

    Sorted by tier. A file holds one tier's tests as a rule; where it does not, its longest decides: files
    stay whole, and with them what their tests share.
    """
    ranks: dict[str, int] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        ranks[file] = min(ranks.get(file, len(_FIRST)), _rank(item))
    items.sort(key=lambda item: ranks[item.nodeid.partition("::")[0]])


def _rank(item: pytest.Item) -> int:
    return next((n for n, tier in enumerate(_FIRST) if item.get_closest_marker(tier)), len(_FIRST))


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
