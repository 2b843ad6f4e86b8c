"""Every service under every fault: it leaves what it would have left without.

A fault is done to all services at once, so whoever runs one cell alone takes ``fault_table``.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tunewheel_local.kafka.errors import JarUnavailable

from . import faults
from .fault_table import FAULTS, SERVICES
from .inputs import LEAVES, MAIN, PACKAGES
from .sides import Left

pytestmark = [pytest.mark.chaos, pytest.mark.nightly("faults")]
Outcomes = tuple[str, Mapping[str, faults.Figures | BaseException]]
NOT_REACHED = {("registry", "slow store")}
"""The registry asks for no file of the store in the recorded turns."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Left | BaseException]:
    try:
        return faults.undisturbed(SERVICES, tmp_path_factory.mktemp("calm"))
    except JarUnavailable as error:
        pytest.skip(f"Kafka's jars are not in the cache and cannot be downloaded: {error}")


@pytest.fixture(scope="module", params=FAULTS)
def outcomes(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    calm: Mapping[str, Left | BaseException],
) -> Outcomes:
    """The fault, and what came of each service."""
    return request.param, faults.run(request.param, SERVICES, tmp_path_factory.mktemp("fault"), calm)


@pytest.mark.parametrize("service", SERVICES)
def test_a_fault_changes_nothing_of_what_a_service_leaves(outcomes: Outcomes, service: str) -> None:
    """The figures are in var/nightly/faults.json."""
    fault, found = outcomes
    if isinstance(figures := found[service], BaseException):
        raise figures
    reached = figures["result"] != "not shown"
    assert reached != ((service, fault) in NOT_REACHED), f"the fault reached the service: {reached}"


def test_the_table_has_every_cell_of_the_matrix() -> None:
    assert tuple(faults.FAULTS) == FAULTS
    assert tuple(PACKAGES) == tuple(MAIN) == tuple(LEAVES) == SERVICES
