"""The chart rendered by Helm, and checked object by object.

Not part of ``make test``, hence the file's name: ``make test-kube`` builds Helm and kubeconform first.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from tunewheel_contracts.topics import BY_NAME
from tunewheel_train.launching.jobs import job_of, read_template

from ..contract.test_settings_named import ROOT, settings_class, settings_of
from .release import Published
from .tools import CRDS, EXAMPLES, TOOLS, run

Manifests = list[dict[str, Any]]
VLLM: Manifests = list(yaml.safe_load_all((ROOT / "deploy/vllm/kubernetes.yaml").read_text("utf-8")))
"""What runs vLLM beside the examples that serve by it."""
SECRET = "0123456789abcdef" * 4
DIGEST = f"sha256:{SECRET}"


def told_by(*settings: str) -> list[str]:
    """Return the options of Helm for ``name=value``."""
    return [word for setting in settings for word in ("--set", setting)]


def rendered(
    helm: str,
    chart: Path,
    example: str,
    *settings: str,
    values: tuple[Path, ...] = (),
    release: str = "wheel",
    namespace: str = "wheels",
) -> Manifests:
    files = [word for path in (EXAMPLES[example], *values) for word in ("--values", str(path))]
    told = (*files, *told_by(*settings))
    text = run(helm, "template", release, str(chart), "--namespace", namespace, *told)
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="session")
def manifests(helm: str, chart: Path) -> dict[str, Manifests]:
    told = ("monitoring.rules.enabled=true", "monitoring.dashboards.enabled=true")
    return {name: rendered(helm, chart, name, *told) for name in EXAMPLES}


def of_kind(manifests: Manifests, *kinds: str) -> dict[str, dict[str, Any]]:
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] in kinds}


def workloads(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Return by service."""
    found = of_kind(manifests, "Deployment", "StatefulSet").values()
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in found}


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return container


def pods(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Return every pod, and that of every object that makes some, by the object's name."""
    found = of_kind(manifests, "Deployment", "StatefulSet", "Job").items()
    made = {name: one["spec"]["template"]["spec"] for name, one in found}
    return made | {name: one["spec"] for name, one in of_kind(manifests, "Pod").items()}


def test_pods_of_two_releases_of_the_monitor_never_run_beside_each_other(
    manifests: dict[str, Manifests],
) -> None:
    for found in manifests.values():
        replaced = {
            name
            for name, one in workloads(found).items()
            if one["spec"].get("strategy") == {"type": "Recreate"}
        }
        assert replaced == {"monitor"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_finds_nothing_to_complain_of(helm: str, chart: Path, example: str) -> None:
    run(helm, "lint", "--strict", str(chart), "--values", str(EXAMPLES[example]))


def schemas_of_crds(folder: Path) -> None:
    """Write what kubeconform reads from the vendored CRDs."""
    for path in sorted(CRDS.glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text("utf-8")):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = _closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                name = f"{spec['names']['kind'].lower()}-{spec['group']}-{version['name']}.json"
                (folder / name).write_text(json.dumps(schema))


def _closed(schema: Any) -> Any:
    """Return the schema with unknown fields refused, as a server that prunes them would not tell."""
    if isinstance(schema, list):
        return [_closed(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(value) for name, value in schema.items()}
    is_open = found.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in found
    if isinstance(found.get("properties"), dict) and "type" in found and not is_open:
        found["additionalProperties"] = False
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("type", None)
        found["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return found


def test_every_object_is_one_of_its_kind(
    helm: str, manifests: dict[str, Manifests], tmp_path: Path, core_schemas: Path
) -> None:
    schemas_of_crds(tmp_path)
    kinds: set[str] = set()
    for name, found in manifests.items():
        kinds |= {one["kind"] for one in found}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(found))
    (tmp_path / "vllm.yaml").write_text(yaml.safe_dump_all(VLLM))
    assert {"ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule", "KafkaTopic"} <= kinds
    assert {"KafkaUser", "NetworkPolicy", "PodDisruptionBudget", "Job", "StatefulSet", "Deployment"} <= kinds
    locations = (
        str(core_schemas / "{{.ResourceKind}}{{.KindSuffix}}.json"),
        str(tmp_path / "{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json"),
    )
    places = [word for location in locations for word in ("-schema-location", location)]
    check = (str(TOOLS / "kubeconform"), "-strict", "-summary", *places)
    run(*check, *(str(tmp_path / f"{name}.yaml") for name in (*manifests, "vllm")))
    broken = workloads(manifests["minimal"])["train"]
    broken["spec"]["template"]["spec"]["gracePeriod"] = 5
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    assert run(*check, str(tmp_path / "broken.yaml"), fails=True) is not None


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_a_pod_is_told_makes_its_service_s_settings(
    example: str, manifests: dict[str, Manifests], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = manifests[example]
    configs = of_kind(found, "ConfigMap")
    services = workloads(found)
    assert len(services) >= 9
    for service, workload in services.items():
        container = container_of(workload)
        told = dict(configs[container["envFrom"][0]["configMapRef"]["name"]]["data"])
        told |= {one["name"]: one.get("value", SECRET) for one in container.get("env", ())}
        if "TUNEWHEEL_LIMITS_URL" in told:
            told["TUNEWHEEL_LIMITS_URL"] = "redis://limits:6379"
        assert set(told) <= settings_of(ROOT / "services" / service), service
        with monkeypatch.context() as environment:
            for name, value in told.items():
                environment.setenv(name, value)
            settings = settings_class(service)()
        assert settings.health_port == 9090


@pytest.mark.parametrize("example", EXAMPLES)
def test_pods_keep_the_restricted_standard_and_can_be_asked_and_stopped(
    example: str, manifests: dict[str, Manifests]
) -> None:
    for name, pod in pods(manifests[example]).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        makes_jobs = example == "highly-available" and name == "wheel-tunewheel-train"
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (makes_jobs, False)
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]
        assert {"/tmp", "/var/lib/tunewheel"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    for service, workload in workloads(manifests[example]).items():
        pod, container = workload["spec"]["template"]["spec"], container_of(workload)
        paths = {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
        assert paths == {"livenessProbe": "/health/live", "readinessProbe": "/health/ready"}
        assert pod["terminationGracePeriodSeconds"] >= (360 if service == "train" else 60)


def test_nothing_is_single_where_it_must_not_be(manifests: dict[str, Manifests]) -> None:
    found = manifests["highly-available"]
    budgets = of_kind(found, "PodDisruptionBudget").values()
    guarded = {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in budgets}
    services = workloads(found)
    scaled = {one["spec"]["scaleTargetRef"]["name"].removeprefix("wheel-tunewheel-")
              for one in of_kind(found, "ScaledObject").values()}  # fmt: skip
    assert scaled == {"curate", "ingest"}
    assert all("replicas" not in services[service]["spec"] for service in scaled)
    several = {name for name, one in services.items() if one["spec"].get("replicas", 1) > 1}
    assert guarded == several | {"ingest"}
    assert several == set(services) - scaled
    assert of_kind(manifests["minimal"], "PodDisruptionBudget") == {}
    limits = {name: container_of(one)["resources"]["limits"] for name, one in services.items()}
    gpus = {name: limit["nvidia.com/gpu"] for name, limit in limits.items() if "nvidia.com/gpu" in limit}
    assert gpus == {"eval": 1}, "runs have theirs in Jobs, and vLLM its own"


def test_on_one_gpu_train_alone_holds_it_and_has_one_slot_for_all_projects(
    manifests: dict[str, Manifests],
) -> None:
    found = manifests["one-gpu"]
    gpus = {
        name: pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for name, pod in pods(found).items()
    }
    assert {name: number for name, number in gpus.items() if number} == {"wheel-tunewheel-train": 1}
    train = workloads(found)["train"]
    assert train["spec"]["replicas"] == 1, "the slots are those of one process"
    assert train["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    configs = of_kind(found, "ConfigMap")
    assert "wheel-tunewheel-train-job" not in configs, "Jobs would wait for the scheduler, not for their turn"
    told = {name: configs[f"wheel-tunewheel-{name}"]["data"] for name in ("train", "eval", "engine")}
    assert told["train"]["TUNEWHEEL_TRAIN_SLOTS"] == "1"
    assert told["train"]["TUNEWHEEL_TRAIN_GPUS"] == "0"
    engine, judge = (settings_class(name).model_fields for name in ("engine", "eval"))
    assert told["eval"]["TUNEWHEEL_EVAL_DTYPE"] == judge["eval_dtype"].default
    assert (
        told["engine"].get("TUNEWHEEL_DTYPE", engine["dtype"].default) == told["eval"]["TUNEWHEEL_EVAL_DTYPE"]
    )


def test_each_engine_has_a_name_that_the_gateway_is_told(helm: str, chart: Path) -> None:
    told = ("services.engine.replicas=2", "tls.existingSecret=tunewheel-tls")
    found = rendered(helm, chart, "minimal", *told)
    told = of_kind(found, "ConfigMap")["wheel-tunewheel-serve-gateway"]["data"]
    engine = workloads(found)["engine"]
    headless = of_kind(found, "Service")[engine["spec"]["serviceName"]]
    assert headless["spec"]["clusterIP"] == "None"
    assert told["TUNEWHEEL_ENGINE_URL"].split(",") == [
        f"https://wheel-tunewheel-engine-{n}.{headless['metadata']['name']}.wheels.svc:8080" for n in (0, 1)
    ]
    assert not any(name.endswith("-engine") for name in of_kind(found, "Service"))


def test_scalers_ask_for_the_groups_of_this_installation(manifests: dict[str, Manifests]) -> None:
    for scaled in of_kind(manifests["highly-available"], "ScaledObject").values():
        service = scaled["spec"]["scaleTargetRef"]["name"].removeprefix("wheel-tunewheel-")
        asked = {t["metadata"]["topic"]: t["metadata"] for t in scaled["spec"]["triggers"]}
        groups = {topic: group for topic, spec in BY_NAME.items() for group in spec.groups_of(service)}
        assert {topic: one["consumerGroup"] for topic, one in asked.items()} == {
            f"acme.{topic}": f"acme.{group}" for topic, group in groups.items()
        }
        assert {(one["sasl"], one["tls"]) for one in asked.values()} == {("scram_sha512", "enable")}
        assert scaled["spec"]["minReplicaCount"] >= 1


def test_strimzi_is_asked_for_every_topic_and_the_least_rights(manifests: dict[str, Manifests]) -> None:
    found = manifests["strimzi"]
    topics = {one["spec"]["topicName"]: one for one in of_kind(found, "KafkaTopic").values()}
    assert set(BY_NAME) <= set(topics)
    assert {one["metadata"]["annotations"]["helm.sh/resource-policy"] for one in topics.values()} == {"keep"}
    users = of_kind(found, "KafkaUser")
    services = {name for name in workloads(found) if name != "engine"}
    assert set(users) == {f"wheel-tunewheel-{name}" for name in services | {"cli"}}
    for service, workload in workloads(found).items():
        container = container_of(workload)
        told = of_kind(found, "ConfigMap")[f"wheel-tunewheel-{service}"]["data"]
        password = next(one for one in container["env"] if one["name"] == "TUNEWHEEL_SASL_PASSWORD")
        assert told["TUNEWHEEL_SASL_USERNAME"] == f"wheel-tunewheel-{service}"
        of = password["valueFrom"]["secretKeyRef"]
        assert of == {"name": f"wheel-tunewheel-{service}", "key": "password"}


def test_rules_and_dashboards_arrive_as_they_are(manifests: dict[str, Manifests], chart: Path) -> None:
    found = manifests["minimal"]
    files = [path.read_text("utf-8") for path in (chart / "observability" / "rules").glob("*.y*ml")]
    rules = {name: one["spec"] for name, one in of_kind(found, "PrometheusRule").items()}
    (of_services,) = [rules.pop(name) for name in list(rules) if name.endswith("-services")]
    labels = [rule["labels"] for group in of_services["groups"] for rule in group["rules"]]
    assert {one["service"] for one in labels} == set(workloads(found))
    specs = list(rules.values())
    written = [json.dumps(yaml.safe_load(text), sort_keys=True) for text in files]
    assert sorted(json.dumps(spec, sort_keys=True) for spec in specs) == sorted(written)
    arrived = {name: json.loads(text) for one in of_kind(found, "ConfigMap").values()
               for name, text in one["data"].items() if name.endswith(".json")}  # fmt: skip
    folder = chart / "observability" / "dashboards"
    assert arrived == {path.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_test_runs_the_doctor_on_the_kafka_and_the_store_of_the_services(
    example: str, manifests: dict[str, Manifests]
) -> None:
    found = manifests[example]
    (doctor,) = of_kind(found, "Pod").values()
    assert doctor["metadata"]["annotations"]["helm.sh/hook"] == "test"
    of_services = {one["spec"]["template"]["spec"]["serviceAccountName"] for one in workloads(found).values()}
    assert {doctor["spec"]["serviceAccountName"]} == of_services, "a cloud may know the store's readers by it"
    for job in of_kind(found, "Job").values():
        assert "serviceAccountName" not in job["spec"]["template"]["spec"], (
            "the first one runs before it exists"
        )
    container = doctor["spec"]["containers"][0]
    assert container["image"] == "tunewheel/cli:0.1.0"
    assert container["args"] == ["tunewheel", "doctor", "cli"]
    told = {one["name"]: one.get("value") for one in container["env"]}
    registry = of_kind(found, "ConfigMap")["wheel-tunewheel-registry"]["data"]
    same = ("TUNEWHEEL_BOOTSTRAP_SERVERS", "TUNEWHEEL_TOPIC_PREFIX", "TUNEWHEEL_STORE_URL")
    assert [told.get(name) for name in same] == [registry.get(name) for name in same]
    of_registry = workloads(found)["registry"]["spec"]["template"]["spec"]
    paths = {mount["mountPath"] for mount in container_of(workloads(found)["registry"])["volumeMounts"]}
    mine = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert paths - mine <= {f"/etc/tunewheel/{folder}" for folder in ("identity", "signing", "tls")}
    volumes = {one["name"]: one for one in of_registry["volumes"]}
    assert all(one == volumes[one["name"]] for one in doctor["spec"]["volumes"] if one["name"] == "store")


def test_the_doctor_may_run_on_nodes_of_its_own(helm: str, chart: Path) -> None:
    told = ("doctor.nodeSelector.pool=wheels", "doctor.tolerations[0].operator=Exists")
    (doctor,) = of_kind(rendered(helm, chart, "minimal", *told), "Pod").values()
    assert doctor["spec"]["nodeSelector"] == {"pool": "wheels"}
    assert doctor["spec"]["tolerations"] == [{"operator": "Exists"}]


OAUTH = (
    "kafka.securityProtocol=SASL_SSL",
    "kafka.sasl.mechanism=OAUTHBEARER",
    "kafka.sasl.oauth.existingSecret=of-{service}",
)


@pytest.mark.parametrize(
    ("example", "told", "said"),
    [
        ("minimal", (), "says what to do.\n\nApplications"),
        ("minimal", OAUTH, "rights of the principal cli: Secret of-cli.\n\nApplications"),
        ("strimzi", ("doctor.principal=train",), "train: Secret wheel-tunewheel-train.\n\nApplications"),
        (
            "strimzi",
            ("doctor.principal=upstream-tickets",),
            "add\nupstream-tickets to strimzi.users.people.\n\nApplications",
        ),
        ("strimzi", ("doctor.principal=topics",), "Strimzi has no user\nof that name"),
    ],
)
def test_the_notes_say_which_credentials_the_doctor_takes(
    helm: str, chart: Path, example: str, told: tuple[str, ...], said: str
) -> None:
    values = ("--values", str(EXAMPLES[example]), *told_by(*told))
    assert said in run(helm, "install", "wheel", str(chart), "--dry-run=client", *values)


def test_only_the_gateway_may_call_the_engine(manifests: dict[str, Manifests]) -> None:
    (of_vllm,) = of_kind(VLLM, "NetworkPolicy").values()
    for found in (manifests["minimal"], manifests["highly-available"]):
        policies = of_kind(found, "NetworkPolicy")
        policies.pop("wheel-tunewheel-train-runs", None)
        assert len(policies) == len(workloads(found))
        engine = policies.get("wheel-tunewheel-engine", of_vllm)
        caller = engine["spec"]["ingress"][-1]["from"][0]
        assert caller["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "serve-gateway"
        assert len(policies["wheel-tunewheel-train"]["spec"]["ingress"]) == 1, "it has no API"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("services.train.replicas=5", "services.train.replicas: 5, but its topics have 4 partitions at most"),
        ("services.registry.replicas=3", "one process is active and one stands by"),
        ("services.serve-gateway.replicas=2,secrets.keys.completion=", "several replicas need one secret"),
        ("services.train.settings.stop_seconds=600", "would be killed in the middle of its last checkpoint"),
        ("services.train.gpus=1,services.train.settings.train_slots=2", "need 2"),
        ("identity.apiKeys.existingSecret=", "can tell who calls"),
        ("identity.signing.publicKeys=", "without the keys that sign and verify events"),
        ("services.engine.enabled=false", "engine.url: no engine is installed"),
        ("kafka.securityProtocol=SASL_SSL", "SCRAM-SHA-512 needs username and existingSecret"),
        ("kafka.partitions.no=3", 'there is no topic "no"'),
        (
            "services.ingest.scaling.enabled=true,services.ingest.scaling.maxReplicas=4",
            "3 partitions at most",
        ),
        ("services.train.settings.train_slotz=1", "train_slotz"),
        ("doctor.principal=clii", "doctor/principal"),
        ("strimzi.enabled=true", "strimzi.cluster: name the Kafka resource"),
    ],
)
def test_values_that_cannot_work_end_the_installation(
    helm: str, chart: Path, setting: str, words: str
) -> None:
    values = ("--values", str(EXAMPLES["minimal"]))
    assert words in run(helm, "template", "wheel", str(chart), *values, *told_by(setting), fails=True)


def test_more_partitions_allow_more_replicas(helm: str, chart: Path) -> None:
    told = ("services.train.replicas=8", r"kafka.partitions.dataset\.versioned=8")
    assert workloads(rendered(helm, chart, "minimal", *told))["train"]["spec"]["replicas"] == 8


def test_runs_are_jobs_of_their_own_where_it_is_asked_for(
    helm: str, chart: Path, tmp_path: Path, core_schemas: Path
) -> None:
    found = rendered(helm, chart, "highly-available")
    (text,) = (one["data"]["job.yaml"] for one in found if one["metadata"]["name"].endswith("-train-job"))
    path = tmp_path / "job.yaml"
    path.write_text(text)
    job = job_of(read_template(path), "run-1", labels={})
    path.write_text(yaml.safe_dump(job))
    locations = ("-schema-location", str(core_schemas / "{{.ResourceKind}}{{.KindSuffix}}.json"))
    run(str(TOOLS / "kubeconform"), "-strict", *locations, str(path))
    labels, pod = (job["spec"]["template"][part] for part in ("metadata", "spec"))
    (container,) = pod["containers"]
    assert (container["command"], container["args"]) == (["tunewheel-train-run"], ["run-1"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    service = workloads(found)["train"]
    images = [container_of(service)["image"], container["image"]]
    assert images == ["tunewheel/train-launcher:0.1.0", "tunewheel/train:0.1.0"]
    launcher = service["spec"]["template"]["spec"]
    assert (launcher["automountServiceAccountToken"], pod["automountServiceAccountToken"]) == (True, False)
    (role,) = of_kind(found, "Role").values()
    assert role["rules"] == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "patch"]}
    ]
    (bound,) = (one for one in of_kind(found, "RoleBinding").values())
    assert bound["roleRef"]["name"] == role["metadata"]["name"]
    assert bound["subjects"][0]["name"] == launcher["serviceAccountName"]
    own = {**service["spec"]["selector"]["matchLabels"]}
    assert not own.items() <= labels["labels"].items()  # budgets of the service do not count its runs


def test_the_pods_of_a_run_on_several_nodes_find_and_reach_each_other(
    helm: str, chart: Path, tmp_path: Path, core_schemas: Path
) -> None:
    found = rendered(helm, chart, "highly-available", "services.train.settings.train_nodes=2")
    (text,) = (one["data"]["job.yaml"] for one in found if one["metadata"]["name"].endswith("-train-job"))
    path = tmp_path / "job.yaml"
    path.write_text(text)
    job = job_of(read_template(path, nodes=2), "run-1", labels={}, nodes=2)
    path.write_text(yaml.safe_dump(job))
    locations = ("-schema-location", str(core_schemas / "{{.ResourceKind}}{{.KindSuffix}}.json"))
    run(str(TOOLS / "kubeconform"), "-strict", *locations, str(path))
    pod = job["spec"]["template"]
    service = of_kind(found, "Service")[pod["spec"]["subdomain"]]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    selector = service["spec"]["selector"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    policies = of_kind(found, "NetworkPolicy")
    together = policies.pop("wheel-tunewheel-train-runs")["spec"]
    each = [{"podSelector": {"matchLabels": selector}}]
    assert together["podSelector"] == {"matchLabels": selector}
    assert (together["ingress"], together["egress"]) == ([{"from": each}], [{"to": each}])
    assert selector["app.kubernetes.io/component"] == "train-run"
    assert "train-run" not in json.dumps([one["spec"]["ingress"] for one in policies.values()])
    assert len(policies) == len(workloads(found))
    name = service["metadata"]["name"]
    # A run that began on two nodes goes on when the number is lowered.
    lowered, without_jobs = (rendered(helm, chart, example) for example in ("highly-available", "minimal"))
    assert of_kind(lowered, "NetworkPolicy")[name]["spec"] == together
    assert name in of_kind(lowered, "Service")
    assert name not in of_kind(without_jobs, "Service", "NetworkPolicy")


def test_a_chart_from_a_registry_renders_as_the_packed_one(
    helm: str, chart: Path, published: Published
) -> None:
    values = ("--values", str(EXAMPLES["minimal"]), "--set", f"image.digests.ingest={DIGEST}")
    pulled = run(helm, "template", "wheel", *published.words, *values)
    assert pulled == run(helm, "template", "wheel", str(chart), *values)
    assert f"image: tunewheel/ingest@{DIGEST}" in pulled


@pytest.mark.parametrize(
    ("told", "images"),
    [
        (("image.tag=v2",), ["tunewheel/train-launcher:v2", "tunewheel/train:v2"]),
        (("services.train.image.repository=my/train",), ["my/train:0.1.0"] * 2),
        (
            ("services.train.image.tag=v2", "services.train.jobs.image.repository=my/train"),
            ["tunewheel/train-launcher:v2", "my/train:v2"],
        ),
        (
            (f"services.train.image.digest={DIGEST}", "services.train.image.repository=my/train"),
            [f"my/train@{DIGEST}"] * 2,
        ),
        (
            (f"services.train.image.digest={DIGEST}", f"services.train.jobs.image.digest={DIGEST[:-1]}1"),
            [f"tunewheel/train-launcher@{DIGEST}", f"tunewheel/train@{DIGEST[:-1]}1"],
        ),
        (
            (f"services.train.jobs.image.digest={DIGEST}",),
            ["tunewheel/train-launcher:0.1.0", f"tunewheel/train@{DIGEST}"],
        ),
        (
            (f"image.digests.train={DIGEST}", f"image.digests.train-launcher={DIGEST[:-1]}1"),
            [f"tunewheel/train-launcher@{DIGEST[:-1]}1", f"tunewheel/train@{DIGEST}"],
        ),
        (
            (f"image.digests.train={DIGEST}", "image.repository=mirror"),
            ["mirror/train-launcher:0.1.0", f"mirror/train@{DIGEST}"],
        ),
        # What a service's own values name is another image than the published one.
        (
            (f"image.digests.train={DIGEST}", "services.train.image.tag=v2"),
            ["tunewheel/train-launcher:v2", "tunewheel/train:v2"],
        ),
        (
            (f"image.digests.train={DIGEST}", "services.train.image.repository=my/train"),
            ["my/train:0.1.0"] * 2,
        ),
    ],
)
def test_images_of_the_service_and_of_its_runs_can_be_named(
    helm: str, chart: Path, told: tuple[str, ...], images: list[str]
) -> None:
    found = rendered(helm, chart, "highly-available", *told)
    (text,) = (one["data"]["job.yaml"] for one in found if one["metadata"]["name"].endswith("-train-job"))
    assert [container_of(one)["image"] for one in (workloads(found)["train"], yaml.safe_load(text))] == images


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            ("services.train.jobs.enabled=false", "services.train.settings.train_nodes=2"),
            "runs are processes of one pod; set services.train.jobs.enabled",
        ),
        (
            ("services.train.gpus=2", "services.train.jobs.gpus=2"),
            "its Jobs train: set services.train.jobs.gpus",
        ),
        (("services.train.gpus=0", "services.train.jobs.gpus=1"), "train_processes: 2 need one each"),
        ((f"services.train.image.digest={DIGEST}",), "set services.train.jobs.image.digest"),
        (
            (f"services.train.image.digest={DIGEST}", "services.train.jobs.image.repository=my/train"),
            "services.train.image.digest: the service has the image train-launcher",
        ),
        ((f"image.digests.train={DIGEST}", "image.tag=v2"), "image.tag: image.digests names other images"),
        ((f"image.digests.trian={DIGEST}",), "trian"),
        (("image.digests.train=sha256:12",), "image/digests/train"),
    ],
)
def test_images_and_jobs_that_contradict_each_other_end_the_installation(
    helm: str, chart: Path, told: tuple[str, ...], said: str
) -> None:
    values = ("--values", str(EXAMPLES["highly-available"]))
    assert said in run(helm, "template", "wheel", str(chart), *values, *told_by(*told), fails=True)


@pytest.mark.parametrize("missing", ["image.digests", "adapters.perPod"])
def test_values_of_a_release_that_did_not_know_a_value_mean_what_they_meant(
    helm: str, chart: Path, missing: str, tmp_path: Path
) -> None:
    """``helm upgrade --reuse-values`` puts the values of the release before in the place of the chart's."""
    kept = tmp_path / "tunewheel"
    shutil.copytree(chart, kept)
    values = yaml.safe_load((chart / "values.yaml").read_text("utf-8"))
    part, name = missing.split(".")
    del values[part][name]
    (kept / "values.yaml").write_text(yaml.safe_dump(values))
    assert rendered(helm, kept, "minimal") == rendered(helm, chart, "minimal")
    assert rendered(helm, chart, "minimal", f"{missing}=null") == rendered(helm, chart, "minimal")


def beside_the_gateway() -> str:
    """Return the values of docs/operations.md for an engine in each gateway's pod."""
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    return next(one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "perPod: true" in one)


def test_with_a_bucket_and_engines_beside_the_gateways_no_volume_is_shared(
    helm: str, chart: Path, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(beside_the_gateway())
    given = ("--values", str(EXAMPLES["minimal"]), "--values", str(values))
    text = run(helm, "template", "wheel", str(chart), *given)
    found = [document for document in yaml.safe_load_all(text) if document]
    assert of_kind(found, "PersistentVolumeClaim") == {}
    assert "persistentVolumeClaim" not in yaml.safe_dump_all(found)
    assert "engine" not in workloads(found)
    pod = workloads(found)["serve-gateway"]["spec"]["template"]["spec"]
    (adapters,) = (volume for volume in pod["volumes"] if volume["name"] == "adapters")
    assert adapters == {"name": "adapters", "emptyDir": {"sizeLimit": "20Gi"}}
    (engine,) = pod["initContainers"]
    (gateway,) = pod["containers"]
    seen = {one["name"]: one["mountPath"] for one in engine["volumeMounts"]}
    (place,) = (one["mountPath"] for one in gateway["volumeMounts"] if one["name"] == "adapters")
    assert seen["adapters"] == place, "the gateway tells the engine the path"
    assert {one["name"] for one in pod["volumes"]} >= {*seen}
    (vllm,) = (one for one in pods(VLLM).values() if one["containers"][0]["name"] == "vllm")
    told = {one["name"]: one.get("value") for one in engine["env"]}
    # The image has no folder for the pod's user, and the gateway would be ready before its engine is.
    assert {"HOME", "USER", "HF_HOME"} <= told.keys()
    assert told["HF_HOME"] in seen.values()
    assert engine["securityContext"] == vllm["containers"][0]["securityContext"]
    assert "--host=127.0.0.1" in engine["args"]
    assert "exec" in engine["startupProbe"], "the kubelet asks the pod's address, where the engine is not"
    strategy = workloads(found)["serve-gateway"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}, "no GPU is spare"


@pytest.mark.parametrize(
    "told",
    [
        ("adapters.perPod=true",),
        ("adapters.perPod=true", "services.engine.enabled=false", "engine.url=http://vllm:8000"),
        ("adapters.perPod=true", "engine.url=http://127.0.0.1:8000"),
        (
            "adapters.perPod=true",
            "services.engine.enabled=false",
            "engine.url=http://127.0.0.1:8000\\,http://vllm:8000",
        ),
        (
            "adapters.perPod=true",
            "services.engine.enabled=false",
            "engine.url=http://localhost:8000@vllm:80",
        ),
    ],
)
def test_an_engine_that_cannot_see_the_adapters_ends_the_installation(
    helm: str, chart: Path, told: tuple[str, ...]
) -> None:
    values = ("--values", str(EXAMPLES["minimal"]))
    said = run(helm, "template", "wheel", str(chart), *values, *told_by(*told), fails=True)
    assert "adapters.perPod: only an engine" in said


def test_a_volume_that_no_pod_would_mount_ends_the_installation(
    helm: str, chart: Path, tmp_path: Path
) -> None:
    (tmp_path / "values.yaml").write_text(beside_the_gateway())
    values = ("--values", str(EXAMPLES["minimal"]), "--values", str(tmp_path / "values.yaml"))
    told = told_by("adapters.existingClaim=mine")
    said = run(helm, "template", "wheel", str(chart), *values, *told, fails=True)
    assert "adapters.existingClaim: " in said


ACCOUNTS = ("serviceAccount.perService=true", "serviceAccount.annotations.role=arn-{service}")


def test_each_service_may_have_an_identity_of_its_own(helm: str, chart: Path) -> None:
    found = rendered(helm, chart, "highly-available", *ACCOUNTS)
    accounts = of_kind(found, "ServiceAccount")
    services = workloads(found)
    used = {name: one["spec"]["template"]["spec"]["serviceAccountName"] for name, one in services.items()}
    assert used == {name: f"wheel-tunewheel-{name}" for name in services}
    assert set(accounts) == {*used.values(), "wheel-tunewheel-doctor"}
    assert accounts[used["train"]]["metadata"]["annotations"] == {"role": "arn-train"}
    (bound,) = of_kind(found, "RoleBinding").values()
    assert [one["name"] for one in bound["subjects"]] == [used["train"]], "no other service may make Jobs"
    existing = rendered(helm, chart, "minimal", "serviceAccount.name=acme-{service}")
    assert of_kind(existing, "ServiceAccount") == {}
    assert of_kind(existing, "Pod").popitem()[1]["spec"]["serviceAccountName"] == "acme-doctor"
    (single,) = of_kind(rendered(helm, chart, "minimal"), "ServiceAccount")
    assert single == "wheel-tunewheel"


INGRESS = (
    "ingress.hosts.console=wheel.example.org",
    "ingress.hosts.serve-gateway=models.example.org",
    "ingress.trustedProxies[0]=10.0.0.0/8",
)


def test_a_service_with_a_host_is_reached_by_an_ingress_or_a_route_and_no_other_is(
    helm: str, chart: Path
) -> None:
    by_ingress = rendered(helm, chart, "minimal", *INGRESS, "ingress.tlsSecret=cert")
    found = of_kind(by_ingress, "Ingress")
    assert set(found) == {"wheel-tunewheel-console", "wheel-tunewheel-serve-gateway"}
    services = of_kind(by_ingress, "Service")
    for name, one in found.items():
        (rule,) = one["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"]["name"] == name
        assert path["backend"]["service"]["port"]["name"] in {
            p["name"] for p in services[name]["spec"]["ports"]
        }
        assert one["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "cert"}]
    told = of_kind(by_ingress, "ConfigMap")["wheel-tunewheel-console"]["data"]
    assert told["TUNEWHEEL_TRUSTED_PROXIES"] == "10.0.0.0/8"

    by_route = rendered(helm, chart, "minimal", *INGRESS, "ingress.gateway.name=public")
    assert of_kind(by_route, "Ingress") == {}
    route = of_kind(by_route, "HTTPRoute")["wheel-tunewheel-console"]["spec"]
    assert (route["parentRefs"], route["hostnames"]) == ([{"name": "public"}], ["wheel.example.org"])
    assert route["rules"] == [{"backendRefs": [{"name": "wheel-tunewheel-console", "port": 80}]}]
    assert of_kind(rendered(helm, chart, "minimal"), "Ingress", "HTTPRoute") == {}


SCALED = (
    "monitoring.prometheusUrl=http://prometheus:9090",
    "services.engine.scaling.enabled=true",
    "services.serve-gateway.scaling.enabled=true",
)


def test_gateway_and_engine_are_scaled_by_the_requests_that_they_hold(helm: str, chart: Path) -> None:
    found = rendered(helm, chart, "minimal", *SCALED)
    for name, metrics in {
        "engine": {"vllm:num_requests_running", "vllm:num_requests_waiting"},
        "serve-gateway": {"tunewheel_gateway_flight_requests"},
    }.items():
        (trigger,) = of_kind(found, "ScaledObject")[f"wheel-tunewheel-{name}"]["spec"]["triggers"]
        assert trigger["type"] == "prometheus"
        asked = set(re.findall(r"sum\(([\w:]+)\{", trigger["metadata"]["query"]))
        assert asked == metrics
        assert '"wheels"' in trigger["metadata"]["query"]
        assert "replicas" not in workloads(found)[name]["spec"]
    told = of_kind(found, "ConfigMap")["wheel-tunewheel-serve-gateway"]["data"]
    assert told["TUNEWHEEL_ENGINE_URL"] == "dns+http://wheel-tunewheel-engine-pods:8080"
    assert told["TUNEWHEEL_LIMITS_REPLICAS"] == "3", "as many as share a caller's limits at most"


def test_a_pod_takes_init_containers_and_sidecars(helm: str, chart: Path, tmp_path: Path) -> None:
    proxy = {"name": "proxy", "image": "example.org/proxy:1", "restartPolicy": "Always"}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"services": {"train": {"extraInitContainers": [proxy]}}}))
    told = ("--values", str(EXAMPLES["minimal"]), "--values", str(values))
    text = run(helm, "template", "wheel", str(chart), *told)
    found = workloads([document for document in yaml.safe_load_all(text) if document])
    with_some = {name for name, one in found.items() if "initContainers" in one["spec"]["template"]["spec"]}
    assert with_some == {"train"}
    assert found["train"]["spec"]["template"]["spec"]["initContainers"] == [proxy]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (INGRESS[:2], "ingress.trustedProxies"),
        (SCALED[1:], "set monitoring.prometheusUrl"),
        ((*SCALED, "tls.existingSecret=tunewheel-tls"), "set tls.existingSecret or scaling, not both"),
        ((*SCALED, "secrets.keys.completion="), 'with the key "completion"'),
    ],
)
def test_doors_and_scalers_that_cannot_work_end_the_installation(
    helm: str, chart: Path, told: tuple[str, ...], said: str
) -> None:
    values = ("--values", str(EXAMPLES["minimal"]))
    assert said in run(helm, "template", "wheel", str(chart), *values, *told_by(*told), fails=True)
