"""Two teams that must not trust each other: a release of the chart for each, as docs/operations.md says.

Not part of ``make test``, hence the file's name. Rendered charts need Helm alone. Installed charts need a
control plane. Its network carries nothing, so the tests compute from the NetworkPolicies which connections
they admit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from .chart import Manifests, of_kind, pods, rendered, workloads
from .control_plane import ControlPlane, until
from .installing import everything_in
from .release import Release
from .tools import EXAMPLES, HELM_FOLDER

TEAMS = ("acme", "globex")


def of_a_team(team: str) -> str:
    """Return the values of docs/operations.md for a team's own installation."""
    page = (HELM_FOLDER.parents[1] / "docs/operations.md").read_text("utf-8")
    (found,) = (
        one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "topicPrefix: acme." in one
    )
    return found.replace("acme", team)


@pytest.fixture(scope="session")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file of each team's own values."""
    folder = tmp_path_factory.mktemp("teams")
    for team in TEAMS:
        (folder / f"{team}.yaml").write_text(of_a_team(team))
    return {team: folder / f"{team}.yaml" for team in TEAMS}


Teams = dict[str, Manifests]


@pytest.fixture(scope="session", params=["highly-available", "strimzi"])
def teams(request: pytest.FixtureRequest, helm: str, chart: Path, values: dict[str, Path]) -> Teams:
    """What Helm renders for each team: the same example, with the team's values on top."""
    told = ("monitoring.rules.enabled=true", "services.train.jobs.enabled=true")
    if request.param == "strimzi":
        told = (*told, "strimzi.namespace=kafka")
    return {
        team: rendered(
            helm, chart, request.param, *told, values=(values[team],), release=team, namespace=team
        )
        for team in TEAMS
    }


def strings(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        yield from strings([*found, *found.values()])
    elif isinstance(found, list):
        for one in found:
            yield from strings(one)
    elif isinstance(found, str):
        yield found


def names(manifests: Manifests) -> set[tuple[str, str, str]]:
    """Return kind, namespace and name; an object without a namespace would be the whole cluster's."""
    return {(m["kind"], m["metadata"]["namespace"], m["metadata"]["name"]) for m in manifests}


def told(manifests: Manifests, variable: str) -> set[str]:
    """Return what the services, runs and commands of a release are told by an environment variable."""
    maps = [one.get("data", {}) for one in of_kind(manifests, "ConfigMap").values()]
    environments = [
        {one["name"]: one.get("value") for one in container.get("env", ())}
        for pod in pods(manifests).values()
        for container in pod["containers"]
    ]
    return {one[variable] for one in (*maps, *environments) if one.get(variable)}


def test_nothing_of_one_release_names_anything_of_the_other(teams: Teams) -> None:
    mine, theirs = (teams[team] for team in TEAMS)
    assert names(mine).isdisjoint(names(theirs))
    for team, other in permutations(TEAMS):
        assert {space for _, space, _ in names(teams[team])} <= {team, "kafka"}
        assert not [text for text in strings(teams[team]) if other in text.lower()]
        (bound,) = of_kind(teams[team], "RoleBinding").values()
        assert {one["namespace"] for one in bound["subjects"]} == {team}
        assert bound["roleRef"]["kind"] == "Role"


def test_what_lies_outside_of_the_cluster_is_each_team_s_own(teams: Teams) -> None:
    for variable in ("TOPIC_PREFIX", "STORE_URL", "SASL_USERNAME", "OIDC_AUDIENCE"):
        mine, theirs = (told(teams[team], f"TUNEWHEEL_{variable}") for team in TEAMS)
        assert len(mine) == len(theirs) >= (9 if variable == "SASL_USERNAME" else 1)
        for one, other in ((a, b) for a in mine for b in theirs):
            assert not one.startswith(other)
            assert not other.startswith(one)


def test_topics_groups_rights_and_hosts_are_each_team_s_own(teams: Teams) -> None:
    found: dict[str, set[str]] = {}
    for team, manifests in teams.items():
        triggers = [
            trigger["metadata"]
            for one in of_kind(manifests, "ScaledObject").values()
            for trigger in one["spec"]["triggers"]
        ]
        topics = {one["spec"]["topicName"] for one in of_kind(manifests, "KafkaTopic").values()}
        rights = {
            right["resource"]["name"]
            for one in of_kind(manifests, "KafkaUser").values()
            for right in one["spec"]["authorization"]["acls"]
        }
        groups = {one["consumerGroup"] for one in triggers}
        asked = topics | rights | groups | {one["topic"] for one in triggers}
        assert asked
        assert {name for name in asked if not name.startswith(f"{team}.")} <= {"kafka-cluster"}
        hosts = {
            rule["host"] for one in of_kind(manifests, "Ingress").values() for rule in one["spec"]["rules"]
        }
        assert len(hosts) == 3
        found[team] = (asked | hosts) - {"kafka-cluster"}
    assert found["acme"].isdisjoint(found["globex"])


class Peer(NamedTuple):
    """Who connects, or is connected to."""

    namespace: str
    labels: dict[str, str]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a label selector takes ``labels``; an empty one takes all."""
    assert {one["operator"] for one in selector.get("matchExpressions", ())} <= {"In"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )


def admitted(policies: Manifests, source: Peer, target: Peer) -> set[str]:
    """Return the ports of ``target`` to which ``source`` may connect, by name; ``*``: to all of them."""
    ours = [
        one["spec"]
        for one in policies
        if one["metadata"]["namespace"] == target.namespace
        and "Ingress" in one["spec"]["policyTypes"]
        and matches(one["spec"]["podSelector"], target.labels)
    ]
    if not ours:
        return {"*"}
    return {
        str(port)
        for spec in ours
        for rule in spec.get("ingress", ())
        if "from" not in rule or any(_is_of(one, source, target.namespace) for one in rule["from"])
        for port in [one["port"] for one in rule.get("ports", ())] or ["*"]
    }


def _is_of(peer: dict[str, Any], source: Peer, namespace: str) -> bool:
    assert peer.keys() <= {"podSelector", "namespaceSelector"}
    spaces = peer.get("namespaceSelector")
    # The API server gives every namespace this label.
    label = {"kubernetes.io/metadata.name": source.namespace}
    of_space = source.namespace == namespace if spaces is None else matches(spaces, label)
    return of_space and matches(peer.get("podSelector", {}), source.labels)


def services_of(manifests: Manifests) -> dict[str, Peer]:
    """Return the pods of a release's services and runs, by component."""
    peers = {
        name: Peer(one["metadata"]["namespace"], one["spec"]["template"]["metadata"]["labels"])
        for name, one in workloads(manifests).items()
    }
    for one in of_kind(manifests, "ConfigMap").values():
        if "job.yaml" in one.get("data", {}):
            job = yaml.safe_load(one["data"]["job.yaml"])
            labels = job["spec"]["template"]["metadata"]["labels"]
            peers["train-run"] = Peer(one["metadata"]["namespace"], labels)
    return peers


def demand_apart(policies: Manifests, peers: dict[str, dict[str, Peer]]) -> None:
    """Demand that no pod in the namespace of one team may connect to a service of the other's."""
    for team, other in permutations(TEAMS):
        namespace = next(iter(peers[team].values())).namespace
        for source in (*peers[team].values(), Peer(namespace, {}), Peer(namespace, {"app": "anything"})):
            for name, target in peers[other].items():
                assert admitted(policies, source, target) == set(), (team, source, name)


def test_no_pod_of_one_team_may_connect_to_one_of_the_other(teams: Teams) -> None:
    policies = [one for found in teams.values() for one in of_kind(found, "NetworkPolicy").values()]
    peers = {team: services_of(found) for team, found in teams.items()}
    assert all(len(found) >= 10 for found in peers.values())
    demand_apart(policies, peers)
    for mine in peers.values():  # and what a team needs is admitted
        console, gateway, run = (mine[name] for name in ("console", "serve-gateway", "train-run"))
        assert admitted(policies, console, mine["registry"]) == {"http"}
        assert admitted(policies, Peer("ingress", {}), gateway) == {"http"}
        assert admitted(policies, Peer("observability", {}), gateway) == {"health"}
        assert admitted(policies, run, run) == {"*"}


def test_without_the_values_of_a_team_its_doors_take_anybody_s_connections(helm: str, chart: Path) -> None:
    """Hence the page asks for them: by default who has a key comes from anywhere."""
    found = {team: rendered(helm, chart, "minimal", release=team, namespace=team) for team in TEAMS}
    policies = [one for each in found.values() for one in of_kind(each, "NetworkPolicy").values()]
    acme, globex = (services_of(found[team]) for team in TEAMS)
    assert admitted(policies, acme["console"], globex["serve-gateway"]) == {"http", "health"}
    assert admitted(policies, acme["serve-gateway"], globex["engine"]) == {"health"}
    assert admitted(policies, globex["serve-gateway"], globex["engine"]) == {"http", "health"}


@pytest.fixture
def installed(
    plane: ControlPlane, helm: str, chart: Path, values: dict[str, Path], request: pytest.FixtureRequest
) -> Callable[..., Release]:
    def install(team: str, example: str = "highly-available", name: str | None = None) -> Release:
        space = f"{team}-{example}"
        found = Release(plane, helm, chart, EXAMPLES[example], space, values[team], name=name or team)
        found.prepare()
        request.addfinalizer(found.remove)
        return found

    return install


def cluster_wide(plane: ControlPlane) -> set[tuple[str, str]]:
    """Return kind and name of all objects outside of namespaces, but those that the tests make, and the
    addresses that the server gives to Services."""
    groups = [group["preferredVersion"]["groupVersion"] for group in plane.get("/apis")["groups"]]
    return {
        (resource["kind"], item["metadata"]["name"])
        for path in ("/api/v1", *(f"/apis/{group}" for group in groups))
        for resource in plane.get(path)["resources"]
        if not resource["namespaced"] and "list" in resource.get("verbs", ()) and "/" not in resource["name"]
        if resource["kind"] not in {"Namespace", "PersistentVolume", "IPAddress"}
        for item in plane.items(f"{path}/{resource['name']}")
    }


def test_two_teams_are_installed_side_by_side_and_the_end_of_one_leaves_the_other(
    plane: ControlPlane, installed: Callable[..., Release]
) -> None:
    before = cluster_wide(plane)
    acme, globex = (installed(team) for team in TEAMS)
    for release in (acme, globex):
        release.helm("install", "--wait", "--timeout", "15m")
    for release in (acme, globex):
        release.until_available()
    assert cluster_wide(plane) <= before, "a release makes nothing outside of its namespace"
    peers = {
        team: {
            pod["metadata"]["name"]: Peer(release.namespace, pod["metadata"]["labels"])
            for pod in release.pods()
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "topics"
        }
        for team, release in zip(TEAMS, (acme, globex), strict=True)
    }
    policies = plane.items("/apis/networking.k8s.io/v1/networkpolicies")
    demand_apart(policies, peers)
    claims = [
        [
            claim["spec"]["volumeName"]
            for claim in plane.items(f"/api/v1/namespaces/{space}/persistentvolumeclaims")
        ]
        for space in (acme.namespace, globex.namespace)
    ]
    assert all(claims)
    assert set(claims[0]).isdisjoint(claims[1])
    for mine, theirs in permutations((acme, globex)):
        assert may(plane, mine, "create", "batch", "jobs", within=mine)
        for verb, group, resource in (("create", "batch", "jobs"), ("get", "", "secrets")):
            assert not may(plane, mine, verb, group, resource, within=theirs)
    kept = everything_in(plane, globex.namespace)
    acme.helm("uninstall", "--wait", "--timeout", "15m")
    assert everything_in(plane, globex.namespace) == kept
    globex.until_available()


def may(
    plane: ControlPlane, release: Release, verb: str, group: str, resource: str, *, within: Release
) -> bool:
    """Return what the API server says to the service account of a release's train."""
    account = release.workload("train")["spec"]["template"]["spec"]["serviceAccountName"]
    asked = {"namespace": within.namespace, "verb": verb, "group": group, "resource": resource}
    spec = {"user": f"system:serviceaccount:{release.namespace}:{account}", "resourceAttributes": asked}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return plane.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"]


def test_a_second_release_takes_no_kafka_user_or_topic_of_the_first(
    plane: ControlPlane, installed: Callable[..., Release]
) -> None:
    """Both have one name, and one Strimzi serves both: its users and topics lie in one namespace."""
    plane.apply(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kafka"}}
    )
    acme, globex = (installed(team, "strimzi", "wheel") for team in TEAMS)
    there = ("--set", "strimzi.namespace=kafka", "--timeout", "15m")
    acme.helm("install", *there)
    path = "/apis/kafka.strimzi.io/v1/namespaces/kafka/kafkausers"
    before = {one["metadata"]["name"]: one["spec"] for one in plane.items(path)}
    assert before
    assert "cannot be imported into the current release" in globex.helm("install", *there, fails=True)
    assert {one["metadata"]["name"]: one["spec"] for one in plane.items(path)} == before
    until(lambda: {"wheel-tunewheel-train"} <= acme.available(), "the first release's pods")
