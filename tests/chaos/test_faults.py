"""Every service under every fault: it leaves what it would have left without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tunewheel_local.kafka.broker import LocalKafka

from ..conftest import start_broker
from . import faults
from .fault_table import FAULTS, SERVICES
from .inputs import PACKAGES

pytestmark = [pytest.mark.chaos, pytest.mark.nightly("faults")]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    started = start_broker(tmp_path_factory.mktemp("kafka"))
    yield started
    started.kill()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_nothing_of_what_a_service_leaves(
    broker: LocalKafka, tmp_path: Path, service: str, fault: str
):
    """The figures are in var/nightly/faults.json."""
    faults.run(service, fault, broker, tmp_path)


def test_the_table_has_every_cell_of_the_matrix() -> None:
    assert tuple(faults.FAULTS) == FAULTS
    assert tuple(PACKAGES) == SERVICES
