"""The Helm chart says what the code says: settings, topics, rights, who is on the bus. No Go is needed here;
``make test-kube`` renders the chart and installs it."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from tunewheel_contracts.topics import TOPICS
from tunewheel_runtime.identity.command_keys import SIGNERS
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_train.settings import Settings as TrainSettings

from .deployment import stages
from .test_settings_named import ROOT, SERVICES, settings_class, settings_of

HELM = ROOT / "deploy" / "helm"
CHART = HELM / "tunewheel"
EXAMPLES = sorted((HELM / "examples").glob("*.yaml"))


def loaded(path: str) -> dict[str, Any]:
    return yaml.safe_load((CHART / path).read_text("utf-8"))


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate_chart", HELM / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def values_schema() -> Draft7Validator:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return values as Helm merges them."""
    result = copy.deepcopy(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


def complaints(schema: Draft7Validator, over: dict[str, Any]) -> list[str]:
    minimal = yaml.safe_load((HELM / "examples" / "minimal.yaml").read_text("utf-8"))
    errors = schema.iter_errors(merged(merged(loaded("values.yaml"), minimal), over))
    return [".".join(map(str, error.path)) for error in errors]


def test_what_is_generated_from_the_code_is_fresh(generate: Any) -> None:
    assert [path.name for path in generate.generated()] == ["kafka.json", "values.schema.json"]
    assert generate.stale() == []


def test_the_chart_knows_every_service_and_what_it_is() -> None:
    facts, secrets = loaded("files/services.yaml"), loaded("files/environment.yaml")["secrets"]
    names = {service.name for service in SERVICES}
    assert set(facts) == set(loaded("values.yaml")["services"]) == names
    assert {name for name in names if "bus" not in facts[name]} == {"engine"}
    elected = {service for spec in TOPICS for service in spec.elects}
    assert {name for name in names if "activeStandby" in facts[name]} == elected
    assert {name for name in names if "oneRelease" in facts[name]} == {"monitor"}
    signed = {name for spec in TOPICS if spec.is_signed for name in (*spec.producers, *spec.consumers)}
    assert {name for name in names if "signatures" in facts[name]} == signed - {"upstream"}
    assert {name for name in names if "TUNEWHEEL_SIGNING_KEY" in secrets.get(name, {})} == set(SIGNERS)
    for service in SERVICES:
        source = "".join(path.read_text("utf-8") for path in (service / "src").rglob("*.py"))
        listens = "service.doors.mount(" in source or service.name == "engine"
        assert facts[service.name].get("api", False) == listens, service.name
        asks = listens or ".ask_who()" in source
        assert facts[service.name].get("asksWho", False) == asks, service.name


def test_every_variable_is_a_setting_of_the_service_that_is_told_it() -> None:
    environment, facts = loaded("files/environment.yaml"), loaded("files/services.yaml")
    told = [(group, name) for part in environment.values() for group in part for name in part[group]]
    assert len(told) > 40
    for group, name in told:
        of = [
            name
            for name, fact in facts.items()
            if group in ("all", name) or (group == "bus" and "bus" in fact)
        ]
        assert of, group
        for service in of:
            assert name in settings_of(ROOT / "services" / service), f"{service} does not read {name}"
    assert "TUNEWHEEL_NO_SUCH_THING" not in settings_of(ROOT / "services" / "train")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_keeps_the_schema(example: Path, values_schema: Draft7Validator) -> None:
    assert complaints(values_schema, yaml.safe_load(example.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("over", "where"),
    [
        ({"services": {"train": {"settings": {"train_slotz": 2}}}}, "services.train.settings"),
        ({"services": {"train": {"settings": {"bootstrap_servers": "x:1"}}}}, "services.train.settings"),
        ({"services": {"train": {"settings": {"mlflow_tracking_uri": "x"}}}}, "services.train.settings"),
        ({"services": {"ingest": {"scaling": {"minReplicas": 0}}}}, "services.ingest.scaling.minReplicas"),
        ({"services": {"eval": {"scaling": {"enabled": True}}}}, "services.eval"),
        ({"kafka": {"bootstrapServers": ""}}, "kafka.bootstrapServers"),
        ({"kafka": {"topicPrefix": "acme"}}, "kafka.topicPrefix"),
        ({"store": {"url": "file:///data"}}, "store.url"),
        ({"replicas": 2}, ""),
        ({"strimzi": {"users": {"people": ["upstream"]}}}, "strimzi.users.people.0"),
        ({"strimzi": {"users": {"people": ["cli", "ingest"]}}}, "strimzi.users.people.1"),
        ({"ingress": {"hosts": {"train": "train.example.org"}}}, "ingress.hosts"),
        ({"ingress": {"hosts": {"console": "https://wheel.example.org"}}}, "ingress.hosts.console"),
        ({"ingress": {"trustedProxies": ["*"]}}, "ingress.trustedProxies.0"),
        ({"services": {"engine": {"scaling": {"minReplicas": 0}}}}, "services.engine.scaling.minReplicas"),
        (
            {"services": {"console": {"settings": {"trusted_proxies": "10.0.0.1"}}}},
            "services.console.settings",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(
    over: dict[str, Any], where: str, values_schema: Draft7Validator
) -> None:
    assert complaints(values_schema, over) == [where]


def test_a_user_of_strimzi_s_may_be_whoever_has_rights_and_is_no_service(
    values_schema: Draft7Validator,
) -> None:
    acls = json.loads((CHART / "files/kafka.json").read_text("utf-8"))["acls"]
    people = [name for name in acls if name not in {*(folder.name for folder in SERVICES), "topics"}]
    assert {"cli", "upstream-tickets"} <= set(people)
    assert complaints(values_schema, {"strimzi": {"users": {"people": people}}}) == []


def test_a_training_pod_is_given_longer_than_its_last_checkpoint_may_take() -> None:
    grace = loaded("values.yaml")["services"]["train"]["terminationGracePeriodSeconds"]
    fields = TrainSettings.model_fields
    assert grace > fields["stop_seconds"].default + fields["shutdown_seconds"].default
    others = [s["terminationGracePeriodSeconds"] for s in loaded("values.yaml")["services"].values()]
    assert min(others) > ServiceSettings.model_fields["shutdown_seconds"].default


def test_a_pod_runs_as_the_image_s_user_and_may_write_where_the_image_does() -> None:
    user = loaded("values.yaml")["podSecurity"]
    (runs_as,) = stages()["service"].of("USER")
    assert runs_as == f"{user['runAsUser']}:{user['runAsGroup']}"
    pod = (CHART / "templates" / "_pod.tpl").read_text("utf-8")
    for volume in json.loads(stages()["base"].of("VOLUME")[0]):
        assert f"mountPath: {volume}}}" in pod, volume


def test_a_packed_chart_holds_the_rules_and_dashboards(
    generate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, name in (("rules", "a.yml"), ("dashboards", "b.json")):
        (tmp_path / "from" / part).mkdir(parents=True)
        (tmp_path / "from" / part / name).write_text("{}")
    (tmp_path / "from" / "rules" / "a.md").write_text("no rule")
    monkeypatch.setattr(generate, "OBSERVABILITY", tmp_path / "from")
    packed = generate.pack(tmp_path / "to")
    held = {str(path.relative_to(packed)) for path in (packed / "observability").rglob("*") if path.is_file()}
    assert held == {"observability/rules/a.yml", "observability/dashboards/b.json"}
    assert (packed / "Chart.yaml").is_file()


@pytest.mark.parametrize("service", sorted(loaded("values.yaml")["services"]))
def test_a_pod_has_the_time_that_its_service_may_take_to_end(service: str) -> None:
    settings = settings_class(service).model_construct()
    given = loaded("values.yaml")["services"][service]["terminationGracePeriodSeconds"]
    assert given >= getattr(settings, "grace_seconds", 0.0)


@pytest.mark.parametrize("example", ["highly-available", "strimzi"])
def test_vllm_runs_beside_a_release_as_the_release_expects_it(example: str) -> None:
    """What it serves, under which names, where its adapters lie and who it lets in."""
    values = merged(
        loaded("values.yaml"), yaml.safe_load((HELM / f"examples/{example}.yaml").read_text("utf-8"))
    )
    manifests = yaml.safe_load_all((ROOT / "deploy/vllm/kubernetes.yaml").read_text("utf-8"))
    found = {one["kind"]: one for one in manifests}
    service, pod = found["Service"], found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    told = dict(option.removeprefix("--").split("=") for option in container["args"] if "=" in option)
    environment = {one["name"]: one for one in container["env"]}

    assert service["spec"]["clusterIP"] == "None", "each pod gets each adapter"
    (port,) = service["spec"]["ports"]
    assert values["engine"]["url"] == f"dns+http://{service['metadata']['name']}:{port['port']}"
    assert told["port"] == str(port["port"]) == str(container["ports"][0]["containerPort"])
    assert not values["services"]["engine"]["enabled"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()

    claims = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["spec"]["volumes"]}
    mounts = {claims[mount["name"]]: mount["mountPath"] for mount in container["volumeMounts"]}
    gateway = loaded("files/environment.yaml")["variables"]["serve-gateway"]
    assert mounts["wheel-tunewheel-adapters"] == gateway["TUNEWHEEL_ADAPTER_DIR"]
    mine = values["podSecurity"]
    assert {name: pod["spec"]["securityContext"][name] for name in mine} == mine

    key = environment["VLLM_API_KEY"]["valueFrom"]["secretKeyRef"]
    secrets = values["secrets"]
    assert key == {"name": secrets["existingSecret"], "key": secrets["keys"]["engineApiKey"]}
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]["value"] == "True"
    assert "--enable-lora" in container["args"]
    assert int(told["max-cpu-loras"]) >= int(told["max-loras"]) > 2, "champion, candidate, and one to spare"
    if example == "highly-available":
        assert told["served-model-name"] == values["engine"]["baseModel"]
        assert told["dtype"] == values["services"]["eval"]["settings"]["eval_dtype"]
        assert port["port"] in values["networkPolicy"]["egress"]["ports"]
