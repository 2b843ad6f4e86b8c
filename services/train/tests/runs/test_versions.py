"""Which version supersedes which, as the log has them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_train.runs.runs import Run
from tunewheel_train.runs.versions import Versions


def event(**data: Any) -> Any:
    return SimpleNamespace(data=SimpleNamespace(**data))


def logged(*names: str, project: str = "p") -> Versions:
    versions = Versions()
    for name in names:
        versions.versioned(event(project=project, dataset_id=name))
    return versions


@pytest.mark.parametrize(
    ("log", "newer"),
    [
        ((), None),  # the reader is behind the consumer
        (("ds-1",), None),
        (("ds-0", "ds-1"), None),
        (("ds-1", "ds-2"), "ds-2"),
        (("ds-1", "ds-2", "ds-3"), "ds-2"),  # the same whenever it is decided
        (("ds-1", "ds-2", "ds-1"), "ds-2"),  # told of again
        (("ds-1", "ds-1"), None),
    ],
    ids=str,
)
def test_a_version_is_superseded_by_the_next_one_of_its_project(a_run: Run, log, newer) -> None:
    assert logged(*log).superseding(a_run) == newer
    assert logged(*log, project="q").superseding(a_run) is None


def test_a_run_that_began_is_not_superseded(a_run: Run) -> None:
    versions = logged("ds-1", "ds-2")
    versions.began(event(run_id=a_run.run_id, dataset_id=a_run.dataset_id))
    assert versions.superseding(a_run) is None
    assert versions.superseding(replace(a_run, run_id="run-other")) == "ds-2"
    assert (versions.run_of(a_run.dataset_id), versions.run_of("ds-2")) == (a_run.run_id, None)
