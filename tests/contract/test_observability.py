"""Rules and dashboards name what services export; every alert has a runbook and a test that fires it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_engine.metrics import Metrics as EngineMetrics
from tunewheel_runtime.telemetry import Telemetry, make_telemetry

from .identity_samples import build

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
SERVICES = sorted(
    path.parent.name for path in ROOT.glob("services/*/pyproject.toml") if path.parent.name != "engine"
)
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
NAME = re.compile(r"(?<![\w:])(?:tunewheel|vllm)[_:][\w:]*|(?<![\w:])(?:target_info|up)\b(?!\()")
OF_PROMETHEUS = {"up", "target_info"}
OF_INSTALLATIONS = {"tunewheel:service_expected"}
SUFFIXES = {
    "_Counter": ("_total",),
    "_ObservableCounter": ("_total",),
    "_Histogram": ("_bucket", "_sum", "_count"),
}


def rules() -> list[dict[str, Any]]:
    files = sorted((FOLDER / "rules").glob("*.yaml"))
    assert len(files) == 2
    groups = [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def queries(board: dict[str, Any]) -> list[str]:
    """Return the PromQL of a dashboard's panels."""
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variables of a dashboard that ask Prometheus, by name, in order."""
    return {one["name"]: one for one in board["templating"]["list"] if one["type"] == "query"}


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for file in DASHBOARDS:
        board = json.loads(file.read_text("utf-8"))
        yield from queries(board)
        yield from (one["definition"] for one in variables(board).values())


def of_all_namespaces(expression: str) -> list[str]:
    """Return the metrics in a dashboard's query that are not selected by its namespaces."""
    marked = expression.replace('{namespace=~"$namespace"', "{ours")
    return re.findall(rf"(?:{NAME.pattern})(?![\w:]|{{ours)", re.sub(r'"[^"]*"', '""', marked))


def named(expression: str) -> set[str]:
    """Return the metrics in a PromQL expression; what stands in quotes is a label's value."""
    return set(NAME.findall(re.sub(r'"[^"]*"', '""', expression)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Telemetry]:
    """Return the telemetry of each service on the bus, as its process builds it."""
    folder = tmp_path_factory.mktemp
    return {name: build(name, folder(name), identity="open").telemetry for name in SERVICES}


@pytest.fixture(scope="module")
def exported(built: dict[str, Telemetry]) -> set[str]:
    """Return the name of every series that any service has, as Prometheus calls it."""
    engine = make_telemetry("engine", None)
    EngineMetrics(engine.meter, running=lambda: 0, waiting=lambda: 0, loaded=lambda: 0)
    return set[str]().union(*(_names(telemetry) for telemetry in (*built.values(), engine)))


def _names(telemetry: Telemetry) -> set[str]:
    meter: Any = telemetry.meter
    return {
        instrument.name.replace("vllm.", "vllm:").replace(".", "_") + suffix
        for instrument in meter._instrument_id_instrument.values()
        for suffix in SUFFIXES.get(type(instrument).__name__, ("",))
    }


def test_every_name_is_exported_by_a_service_or_recorded_by_a_rule(exported: set[str]) -> None:
    used = {name for expression in expressions() for name in named(expression)}
    assert len(used) > 40
    assert {"tunewheel_handler_seconds_bucket", "vllm:prompt_tokens_total"} <= used & exported
    assert "tunewheel_no_such_thing" in named('rate(tunewheel_no_such_thing{topic="up"}[5m])') - exported
    assert used - exported - RECORDED - OF_INSTALLATIONS - OF_PROMETHEUS == set()
    assert used >= RECORDED | OF_INSTALLATIONS, "a rule that nobody reads"


def test_every_rule_keeps_installations_in_several_namespaces_apart() -> None:
    first = re.compile(r"\b(?:sum|min|max|avg|count|on|ignoring|without)\b ?(?:by )?\((\w*)")
    assert first.findall("sum(rate(x[5m])) and on (job) max by (service) (y)") == ["rate", "job", "service"]
    labels = [label for rule in rules() for label in first.findall(rule["expr"])]
    assert len(labels) > 40
    assert set(labels) == {"namespace"}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_shows_the_namespaces_that_are_chosen(file: Path) -> None:
    some = 'sum(up) / up{job="up"} + tunewheel:x{namespace=~"$namespace", job="up"}'
    assert of_all_namespaces(some) == ["up", "up"]
    board = json.loads(file.read_text("utf-8"))
    namespace, *others = variables(board).values()
    assert namespace["name"] == "namespace"
    assert (namespace["multi"], namespace["includeAll"]) == (True, True)
    assert namespace["allValue"] == ".*", "also of series without that label, as compose has them"
    assert namespace["current"]["value"] == "$__all"
    asked = [*queries(board), *(one["definition"] for one in others)]
    assert [query for query in asked if of_all_namespaces(query)] == []


def test_every_service_exports_what_all_share(built: dict[str, Telemetry]) -> None:
    assert len(built) == 9
    for name, telemetry in built.items():
        text = telemetry.metrics_text()
        for metric in ("tunewheel_ready", "tunewheel_warnings", "tunewheel_broker_silent_seconds"):
            assert f'{metric}{{service="{name}"}} ' in text
        assert 'service_version="' in text
        assert _names(telemetry) >= {"tunewheel_store_seconds_bucket", "tunewheel_store_bytes_total"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_its_runbook_and_says_how_bad_it_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    page, anchor = alert["annotations"]["runbook_url"].split("#")
    heading = f"### {alert['alert']}"
    assert anchor == alert["alert"].lower()
    runbook = (ROOT / page).read_text("utf-8").split(f"\n{heading}\n")[1].split("\n#")[0]
    assert [f"**{word}:**" in runbook for word in ("Means", "Look at", "Do")] == [True] * 3


def test_every_runbook_is_an_alerts_and_every_alert_is_fired_by_a_test() -> None:
    names = {alert["alert"] for alert in ALERTS}
    assert len(names) == len(ALERTS) > 20
    page = (ROOT / "docs" / "operations.md").read_text("utf-8").split("\n## Alerts\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == names
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text("utf-8"))["tests"]
    tried = [one for test in tests for one in test["alert_rule_test"]]
    assert {one["alertname"] for one in tried if one.get("exp_alerts")} == names
    assert {one["alertname"] for one in tried if not one.get("exp_alerts")} == names, "none fires for nothing"


def test_the_example_for_alertmanager_names_alerts_that_exist() -> None:
    text = (FOLDER / "alertmanager.yaml").read_text("utf-8")
    routes = yaml.safe_load(text)["route"]
    receivers = {one["name"] for one in yaml.safe_load(text)["receivers"]}
    assert receivers == {routes["receiver"], *(one["receiver"] for one in routes["routes"])}
    named = set(re.findall(r"Tunewheel\w+", text))
    assert len(named) >= 5
    assert named <= {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "rules/*.yaml"],
        pytest.param(["test", "rules", "alerts_test.yaml"], marks=pytest.mark.nightly("matrices")),
    ],
)
def test_promtool_agrees(command: list[str]) -> None:
    files = [str(path) for path in sorted(FOLDER.glob(command[-1]))]
    assert files
    promtool(*command[:-1], *files)


def promtool(*words: str) -> None:
    """Run promtool, which must find nothing wrong."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run([found, *words], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_every_query_of_a_dashboard(tmp_path: Path) -> None:
    asked = [query for file in DASHBOARDS for query in queries(json.loads(file.read_text("utf-8")))]
    assert len(asked) > 50
    filled = [re.sub(r"\[\$__\w+\]", "[5m]", query) for query in asked]
    recorded = [{"record": f"query_{n}", "expr": query} for n, query in enumerate(filled)]
    (tmp_path / "queries.yaml").write_text(
        json.dumps({"groups": [{"name": "dashboards", "rules": recorded}]})
    )
    promtool("check", "rules", str(tmp_path / "queries.yaml"))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_imported(file: Path) -> None:
    board = json.loads(file.read_text("utf-8"))
    assert board["uid"] == f"tunewheel-{file.stem}"
    assert board["templating"]["list"][0]["type"] == "datasource"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels), "none lies over another"
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
