"""The worked examples of CONTRIBUTING.md run: its files lie beside the packages' own, and its tests pass."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tunewheel_cli.frame import app
from tunewheel_contracts.formats import source_spec
from tunewheel_curate import cleaning
from tunewheel_curate.steps import ROW_STEPS
from tunewheel_monitor import detectors
from tunewheel_outputs import metrics
from typer.testing import CliRunner

from .snippets import ROOT, blocks

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
Shown = dict[str, str]


def shown(section: str) -> Shown:
    """Return a section's blocks by the path in their first line; a block without one by its language."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found: Shown = {}
    for block in blocks("CONTRIBUTING.md", text):
        found[block.file or block.language] = block.code
    return found


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str, str], Any]:
    """Puts a file into a package for this test; returns its module."""

    def put(package: ModuleType, path: str, code: str) -> Any:
        file = tmp_path / Path(path).name
        file.write_text(code, "utf-8")
        assert (ROOT / path).parent == Path(next(iter(package.__path__)))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        name = f"{package.__name__}.{file.stem}"
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


def suite(path: str) -> Any:
    """Return a test file of the repository as a module."""
    file = ROOT / path
    package = ModuleType(f"suite_{file.stem}")
    package.__path__ = [str(file.parent)]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.{file.stem}")


def test_the_metric_scores_its_rows_and_withstands_what_a_model_may_write(beside: Any) -> None:
    (path, code), (tests, rows), _ = shown("A metric").items()
    beside(metrics, path, code)
    metrics.known_metrics.cache_clear()
    try:
        known = suite(tests)
        before = len(known.CASES)
        exec(rows, vars(known))
        assert len(known.CASES) == before + 2
        for row in known.CASES[before:]:
            known.test_a_row_is_scored(*row)
        for output in known.HOSTILE.values():
            score = metrics.known_metrics()["links_kept"].scorer(known.BY_TEXT, frozenset())
            assert score(known.Row(output=output, expected="https://a.example/x")) == 0
    finally:
        metrics.known_metrics.cache_clear()


def test_the_detector_is_found_and_keeps_quiet_until_its_rate_rises(beside: Any) -> None:
    (path, code), (tests, case) = shown("A detector").items()
    module = beside(detectors, path, code)
    assert "empty" in {one.name for one in detectors.find_detectors()}
    known = suite(tests)
    exec(case, vars(known) | {"Empty": module.Empty})
    known.test_a_rate_that_stays_gives_no_alarm_and_one_that_rises_by_twenty_points_does("empty")
    known.test_a_version_that_is_worse_from_its_first_day_is_found_out("empty")


def test_the_step_drops_what_its_test_says_and_fits_into_the_list(beside: Any) -> None:
    (path, code), (steps, line), (tests, test) = shown("A step").items()
    assert Path(steps).name == "steps.py"
    module = beside(cleaning, path, code)
    records: Any = suite("services/curate/tests/conftest.py").make_records
    names = {"drop_capitals": module.drop_capitals}
    exec(test, names)
    (run,) = (one for name, one in names.items() if name.startswith("test_"))
    run(records)
    listed = importlib.import_module("tunewheel_curate.steps")
    names |= vars(listed)
    exec(line, names)
    step: Any = names["ROW_STEPS"][-1]
    assert step.name not in {one.name for one in ROW_STEPS}
    frame = records({"input": "WHERE IS MY PARCEL TODAY?"}, {"input": "Where?"})
    assert step.run(frame.select("record_id", *step.reads.split())).funnel.reasons == {"capitals": 1}
    assert Path(tests).parent.name == "cleaning"


def test_the_mapping_reads_its_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shown("A source")
    path, code = next(item for item in found.items() if item[0].endswith(".yaml"))
    assert (ROOT / path).parent.is_dir()
    source = yaml.safe_load(code) | {"name": "acme"}
    tests, test = next(item for item in found.items() if item[0].endswith(".py"))
    known = suite(tests)
    monkeypatch.setattr(known, "SourceSpec", lambda **_: source_spec.SourceSpec.model_validate(source))
    monkeypatch.setattr(known, "PAYLOADS", tmp_path)
    (tmp_path / "acme_tickets.json").write_text(found["json"], "utf-8")
    names = dict(vars(known))
    exec(test, names)
    names["test_an_export_of_acme_gives_closed_tickets_with_their_public_answer"]()
    spec = {"project": "p", "base_model": "b/m", "task": {"system_prompt": "s"}, "sources": [source]}
    spec |= {"criteria": [{"metric": "rouge_l", "minimum": 0.1}]}
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "payload.json").write_text(found["json"], "utf-8")
    words = found["bash"].split()[1:]
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert told["counts"] == {"event": 1, "refused": 0, "left out": 1}
