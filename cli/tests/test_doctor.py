"""What the doctor finds: in a cluster as its brokers describe it, a store, engines and clocks."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from tunewheel_cli.acls import least_acls
from tunewheel_cli.commands.doctor import engines_of
from tunewheel_cli.doctor import examination
from tunewheel_cli.doctor.endpoints import (
    ENGINE_CAFILE,
    Engine,
    look_at_engines,
    look_at_mirror,
    look_at_store,
)
from tunewheel_cli.doctor.examination import Installation, clock_findings, examine, judge_device
from tunewheel_cli.doctor.findings import Finding, Verdict, listed
from tunewheel_cli.doctor.kafka import NEEDED, broker_findings, process_findings, rights_findings
from tunewheel_cli.doctor.topics import MIN_IN_SYNC, topic_findings
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.run import BaseModelRef, mirror_of
from tunewheel_local.connection import InvalidOption
from tunewheel_local.places import Var
from tunewheel_local.run_state import RunState
from tunewheel_local.topics import wanted_topics
from tunewheel_planner.driver import Driver
from tunewheel_runtime.base_mirror import mirror_base
from tunewheel_runtime.cluster import Cluster, Copies, SeenGroup, SeenTopic
from tunewheel_runtime.lag import groups_of_services
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.hub import gated_hub, trickling_hub
from tunewheel_testing.tiny import write_tiny_model

EVERYTHING = frozenset({"Read", "Write", "Create", "Delete", "Alter", "Describe", "AlterConfigs"})
COPY = Copies(leader=1, replicas=(1, 2, 3), in_sync=(1, 2, 3))
CLUSTER = Cluster(
    brokers={n: f"kafka-{n}:9092" for n in (1, 2, 3)},
    topics={t.name: SeenTopic(True, True, (COPY,) * t.partitions, EVERYTHING) for t in wanted_topics()},
    apis={key: (0, version) for key, (_, version) in NEEDED.items()},
)
CONFIGS = {t.name: {**t.configs, MIN_IN_SYNC: "2"} for t in wanted_topics()}
GROUPS = {
    name: SeenGroup(1, True, True, ("10.0.0.1",), EVERYTHING & {"Read", "Describe"})
    for name in groups_of_services()
}
ONE = "record.ingested"


def told(findings: list[Finding], verdict: Verdict = Verdict.WRONG) -> list[str]:
    return [finding.text for finding in findings if finding.verdict is verdict]


def with_topic(**changes: object) -> Cluster:
    topics = {**CLUSTER.topics, ONE: replace(CLUSTER.topics[ONE], **changes)}  # type: ignore[arg-type]
    return replace(CLUSTER, topics=topics)


def with_configs(**changes: str) -> Mapping[str, Mapping[str, str]]:
    settings = {name.replace("_", "."): value for name, value in changes.items()}
    return {**CONFIGS, ONE: {**CONFIGS[ONE], **settings}}


def test_nothing_is_wrong_with_a_cluster_as_it_should_be() -> None:
    everything = ("ingest", "curate", "train", "registry", "cli", "topics")
    findings = [
        *broker_findings(CLUSTER, {}),
        *topic_findings(CLUSTER, CONFIGS),
        *rights_findings(everything, CLUSTER, GROUPS),
        *process_findings(GROUPS),
    ]
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert {finding.about for finding in findings} == {"kafka", "topics", "copies", "rights", "services"}
    assert len(findings) == 4 + len(everything)


def test_a_topic_that_differs_from_its_spec_is_told_with_its_name_on_the_brokers() -> None:
    compacted = topic_findings(CLUSTER, with_configs(cleanup_policy="compact"), prefix="acme.")
    assert told(compacted) == [f"acme.{ONE}: cleanup.policy is compact, the spec says delete"]
    assert told(topic_findings(with_topic(partitions=(COPY,)), CONFIGS)) == [
        f"{ONE}: partitions is 1, the spec says 3"
    ]
    assert told(topic_findings(with_topic(partitions=(COPY,) * 12), CONFIGS)) == [], "an operator added some"
    gone = topic_findings(with_topic(exists=False, partitions=()), CONFIGS)
    assert told(gone) == [f"missing: {ONE}"]
    assert "tunewheel admin topics --apply" in gone[0].fix


def test_a_cluster_without_topics_points_to_the_prefix() -> None:
    empty = replace(CLUSTER, topics={name: SeenTopic(False) for name in CLUSTER.topics})
    (finding,) = topic_findings(empty, {}, prefix="acme.")
    assert finding.text == "there are none with the prefix 'acme.'"
    assert "--topic-prefix" in finding.fix
    (rights,) = rights_findings(["train"], empty, GROUPS)
    assert rights.verdict is Verdict.NOT_CHECKED, "nobody has said yet whether train may use its topics"
    count = sum(acl.kind == "topic" for acl in least_acls(["train"]))
    assert rights.text.startswith(f"{count} topics do not exist yet, and what train may do with them")
    assert "topics" in rights.fix


def test_settings_that_kafka_does_not_tell_are_not_taken_for_right() -> None:
    findings = topic_findings(CLUSTER, None)
    assert told(findings, Verdict.NOT_CHECKED) == ["this client may not read their settings"]
    assert not told(findings, Verdict.WRONG)
    assert "topics" not in {finding.about for finding in findings if finding.verdict is Verdict.OK}


@pytest.mark.parametrize("known", [0, 1, len(CONFIGS) - 1])
def test_topics_that_the_asked_broker_does_not_know_yet_are_not_taken_for_right(known: int) -> None:
    findings = topic_findings(CLUSTER, dict(list(CONFIGS.items())[:known]), prefix="acme.")
    (text,) = told(findings, Verdict.NOT_CHECKED)
    assert text.startswith(
        f"the broker that was asked does not know these yet: acme.{min(list(CONFIGS)[known:])}"
    )
    assert not told(findings, Verdict.WRONG)
    assert "topics" not in {finding.about for finding in findings if finding.verdict is Verdict.OK}


@pytest.mark.parametrize(
    ("copy", "in_sync", "text"),
    [
        (replace(COPY, leader=-1, in_sync=()), "2", "partitions without a leader: "),
        (replace(COPY, in_sync=(1,)), "2", "copies are missing or behind: "),
        (Copies(1, (1,), (1,)), "1", "fewer than 3 copies on 3 brokers: "),
        (COPY, "1", "an acknowledged event can be lost with one broker (min.insync.replicas=1): "),
        (COPY, "3", "nobody can write while a broker is down (min.insync.replicas = the copies): "),
    ],
)
def test_copies_that_do_not_survive_a_broker_are_told(copy: Copies, in_sync: str, text: str) -> None:
    findings = topic_findings(with_topic(partitions=(copy,) * 3), with_configs(min_insync_replicas=in_sync))
    assert text + ONE in told(findings)


@pytest.mark.parametrize(
    ("count", "fix"),
    [
        (2, "add a third broker and copies"),
        (3, f"set {MIN_IN_SYNC}=2 on the brokers"),
        (4, f"set {MIN_IN_SYNC}=3 on"),
    ],
)
def test_what_stops_writers_is_not_advised_again(count: int, fix: str) -> None:
    nodes = tuple(range(1, count + 1))
    cluster = with_topic(partitions=(Copies(1, nodes, nodes),) * 3)
    cluster = replace(cluster, brokers={node: f"kafka-{node}:9092" for node in nodes})
    findings = topic_findings(cluster, with_configs(min_insync_replicas=str(count)))
    (stops,) = (finding for finding in findings if finding.text.startswith("nobody can write"))
    assert stops.fix.startswith(fix)


def test_one_broker_is_enough_for_a_wheel_on_one_machine() -> None:
    alone = Copies(1, (1,), (1,))
    topics = {t.name: SeenTopic(True, True, (alone,) * t.partitions, EVERYTHING) for t in wanted_topics()}
    configs = {name: {**told, MIN_IN_SYNC: "1"} for name, told in CONFIGS.items()}
    findings = topic_findings(Cluster({1: "localhost:9092"}, topics, {}), configs)
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert "lost" in findings[-1].text


def test_each_right_that_is_missing_is_told_by_its_name() -> None:
    for acl in (acl for name in ("train", "topics", "cli") for acl in least_acls([name])):
        groups, topics = dict(GROUPS), dict(CLUSTER.topics)
        if acl.kind == "group":
            groups[acl.resource] = replace(groups[acl.resource], operations=frozenset())
        else:
            topics[acl.resource] = replace(topics[acl.resource], operations=EVERYTHING - {acl.operations[0]})
        findings = rights_findings([acl.name], replace(CLUSTER, topics=topics), groups, prefix="acme.")
        wanted = f"{acl.name} must be allowed {acl.operations[0]} on the {acl.kind}s acme.{acl.resource}, "
        assert [text for text in told(findings) if text.startswith(wanted)], acl
        assert findings[0].fix == f"run what `tunewheel admin acls {acl.name} --commands` prints"


def test_what_a_client_must_not_even_see_it_has_no_right_to_and_what_is_not_told_is_not_known() -> None:
    hidden = rights_findings(["ingest"], with_topic(exists=False, visible=False, operations=None), GROUPS)
    assert told(hidden) == [f"ingest must be allowed Write on the topics {ONE}, and this client is not"]
    silent = rights_findings(["ingest"], with_topic(operations=None), GROUPS)
    assert not told(silent)
    assert told(silent, Verdict.NOT_CHECKED) == [
        "Kafka does not tell this client's rights on 1 topics or groups"
    ]


def test_addresses_that_fail_and_an_old_kafka_are_told() -> None:
    failing = broker_findings(CLUSTER, {"kafka-2:9092": "cannot be reached: no such host"})
    assert told(failing) == ["kafka-2:9092 cannot be reached: no such host"]
    old = broker_findings(replace(CLUSTER, apis={**CLUSTER.apis, 11: (0, 4)}), {})
    assert told(old) == ["it does not speak JoinGroup 5 of Kafka's protocol"]


def test_a_service_without_a_process_is_wrong_once_an_installation_is_there() -> None:
    def without(name: str, group: SeenGroup) -> SeenGroup:
        return replace(group, hosts=()) if name.startswith("train.") else group

    absent = process_findings({name: without(name, group) for name, group in GROUPS.items()})
    assert told(absent) == ["no process reads the log for train, and Kafka remembers that some did"]
    assert "keep those of train" in absent[0].fix
    nobody = process_findings(dict.fromkeys(GROUPS, SeenGroup(1)))
    assert [finding.verdict for finding in nobody] == [Verdict.NOT_CHECKED]
    off = process_findings({n: SeenGroup(1) if n.startswith("train.") else g for n, g in GROUPS.items()})
    assert told(off) == [], "it may be switched off on purpose"
    assert told(off, Verdict.NOT_CHECKED) == ["never came to this Kafka: train"]
    assert len(told(off, Verdict.OK)) == 1
    hidden = process_findings(dict.fromkeys(GROUPS, SeenGroup(visible=False)))
    assert [finding.verdict for finding in hidden] == [Verdict.NOT_CHECKED]


def test_clocks_may_differ_by_as_much_as_tokens() -> None:
    near = clock_findings({"the store": timedelta(seconds=-20)}, timedelta(days=-3))
    assert [finding.verdict for finding in near] == [Verdict.OK], "an old event tells nothing"
    far = clock_findings({"the store": timedelta(minutes=-2)}, timedelta(minutes=1))
    assert told(far) == ["the store is 120 s behind", "a broker is 60 s ahead"]
    assert clock_findings({}, None) == []


def test_many_names_are_counted() -> None:
    assert listed("cba") == "a, b, c"
    assert listed(map(str, range(10))) == "0, 1, 2, 3, 4, 5 and 4 more"


async def test_a_store_is_written_and_left_as_it_was(tmp_path: Path) -> None:
    look = await look_at_store(tmp_path.as_uri())
    assert [finding.verdict for finding in look.findings] == [Verdict.OK]
    assert abs(look.offsets["the store"]) < timedelta(minutes=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (absent,) = (await look_at_store((tmp_path / "typo").as_uri())).findings
    assert (absent.verdict, "typo does not exist" in absent.text) == (Verdict.WRONG, True)
    assert not (tmp_path / "typo").exists()
    (tmp_path / "file").write_text("no folder")
    for url in ((tmp_path / "file").as_uri(), "ftp://x/y"):
        (finding,) = (await look_at_store(url)).findings
        assert finding.verdict is Verdict.WRONG
        assert "TUNEWHEEL_STORE_URL" in finding.fix


async def test_copies_of_base_models_are_told_with_what_mends_them(tmp_path: Path) -> None:
    store, model = ObjectStore((tmp_path / "store").as_uri()), write_tiny_model(tmp_path / "model")
    bases = [BaseModelRef(name=f"owner/{name}", revision=name * 40) for name in "abcdef"]
    for base in bases:
        await mirror_base(store, base, model, tmp_path / "cache", meant=True)
    await store.put("bases/ds-1.json", bases[0].model_dump_json().encode())

    async def seen() -> list[Finding]:
        return [one for one in (await look_at_store(store.url)).findings if one.about == "base"]

    assert [one.verdict for one in await seen()] == [Verdict.OK]
    whole, cut, lost, spoilt, half, meant = (f"{mirror_of(b.name)}/{b.revision}" for b in bases)
    await store.replace(f"{cut}/model.safetensors", b"half")
    await store.delete([f"{lost}/config.json"])
    await store.replace(f"{spoilt}.json", b"{")
    await store.delete([f"{half}.json"])
    await store.replace(f"{mirror_of('owner/f')}/main.json", bases[0].model_dump_json().encode())
    found = await seen()
    fixes = {one.fix: one.text for one in found if one.verdict is Verdict.WRONG}
    notes = (f"{cut}.json", f"{lost}.json", f"{spoilt}.json", f"{mirror_of('owner/f')}/main.json")
    for note, words in zip(notes, (f"{cut}/model", f"{lost}/config", "JSON", "'owner/a'"), strict=True):
        (told_of,) = (text for fix, text in fixes.items() if f"delete {note} from the store" in fix)
        assert told_of.startswith(f"{note}: ")
        assert words in told_of
    assert len(fixes) == 4
    (unfinished,) = (one for one in found if one.verdict is Verdict.NOT_CHECKED)
    assert unfinished.text.startswith(f"{half} has files and no note")
    assert not [one for one in found if whole in one.text or meant in one.text]


async def test_copies_that_this_client_may_not_list_are_not_checked(tmp_path: Path) -> None:
    class Shut(ObjectStore):
        async def folders(self, prefix: str) -> list[str]:
            raise TransientError(f"cannot list {prefix}: denied")

    (finding,) = await look_at_mirror(Shut(tmp_path.as_uri()))
    assert (finding.about, finding.verdict) == ("base", Verdict.NOT_CHECKED)
    assert "cannot list bases: denied" in finding.text


@asynccontextmanager
async def serving(answer: object, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_store_that_overwrites_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3-compatible stores do that do not know If-None-Match."""
    objects: dict[str, bytes] = {}
    date = {"ETag": '"x"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}

    async def s3(request: web.Request) -> web.Response:
        name = request.path.removeprefix("/bucket").removeprefix("/")
        if request.method == "PUT":
            objects[name] = await request.read()
            return web.Response(headers=date)
        if request.method == "POST" and "delete" in request.query:
            gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in objects)
            objects.clear()
            return web.Response(text=f"<DeleteResult>{gone}</DeleteResult>", content_type="application/xml")
        if name:
            return web.Response(body=objects[name], headers=date)
        found = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size><ETag>x</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in objects
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        return web.Response(text=body, content_type="application/xml")

    async with serving(s3) as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-north-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        look = await look_at_store("s3://bucket")
    (text,) = told(list(look.findings))
    assert text == "s3://bucket overwrites an object that was to be created only where there is none"
    assert "If-None-Match" in look.findings[0].fix
    assert objects == {}
    assert look.offsets["the store"] < timedelta(days=-1), "its clock stands at the year's first day"


async def test_engines_are_asked_as_the_gateway_asks_them() -> None:
    def engine(path: str, body: object) -> object:
        async def answer(request: web.Request) -> web.Response:
            if request.headers.get("Authorization") != "Bearer right":
                return web.Response(status=401)
            return web.json_response(body) if request.path == path else web.Response(status=404)

        return answer

    vllm = engine("/v1/models", {"data": [{"id": "base"}, {"id": "adapter"}]})
    tgi = engine("/info", {"model_id": "base"})
    right = SecretStr("right")
    async with serving(vllm) as one, serving(tgi) as other:
        look = await look_at_engines([Engine(one, right), Engine(other, right), Engine(one)])
        gone = one
    first, second, third = look.findings
    assert (first.verdict, first.text) == (Verdict.OK, f"{one} serves adapter, base")
    assert (second.verdict, second.text) == (Verdict.OK, f"{other} serves base")
    assert (third.verdict, third.text) == (Verdict.WRONG, f"{one} answers 401 to this key")
    assert len(look.offsets) == 2
    (absent,) = (await look_at_engines([Engine(gone)])).findings
    assert absent.verdict is Verdict.WRONG
    assert "TUNEWHEEL_ENGINE_URL" in absent.fix


@pytest.mark.parametrize(
    "body", [{"data": None}, {"data": []}, {"data": [{"name": "base"}]}, [], [1], "base", None, {}]
)
async def test_an_answer_that_no_engine_gives_is_a_finding(body: object) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, headers={"Date": "Thu, 01 Jan 2026 00:00:00 -0000"})

    async with serving(answer) as url:
        (finding,) = (await look_at_engines([Engine(url)])).findings
    assert finding.verdict is Verdict.WRONG
    assert f"{url} does not answer as an engine does" in finding.text


async def test_engines_are_trusted_as_the_gateway_trusts_them(
    authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "base"}]})

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("localhost", "127.0.0.1"))
    async with serving(answer, tls) as url:
        engine = Engine(url.replace("http://127.0.0.1", "https://localhost"))
        monkeypatch.setenv("TUNEWHEEL_HTTP_CAFILE", str(authority.cafile))
        (refused,) = (await look_at_engines([engine])).findings
        monkeypatch.setenv(ENGINE_CAFILE, str(authority.cafile))
        (trusted,) = (await look_at_engines([engine])).findings
    assert (refused.verdict, refused.fix) == (Verdict.WRONG, f"name its authority in {ENGINE_CAFILE}")
    assert trusted.verdict is Verdict.OK, trusted.text


def test_the_engine_here_is_sent_what_its_gateway_sends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TUNEWHEEL_ENGINE_API_KEY", "TUNEWHEEL_HTTP_CAFILE", "TUNEWHEEL_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNEWHEEL_API_KEY", "of-a-person")
    var = Var(tmp_path)
    var.identity.mkdir()
    (var.identity / "api-key").write_text("of-the-wheel")
    wheel = RunState(1, 1.0, "running", "localhost:9092", services={"engine": {"url": "http://here:1"}})

    def sent() -> tuple[str, str]:
        ((engine,), authority) = engines_of(None, wheel, var)
        return engine.key.get_secret_value() if engine.key else None, authority

    assert sent() == ("of-the-wheel", ENGINE_CAFILE)
    monkeypatch.setenv("TUNEWHEEL_ENGINE_API_KEY", "of-the-engine")
    monkeypatch.setenv("TUNEWHEEL_HTTP_CAFILE", "ca.pem")
    assert sent() == ("of-the-engine", "TUNEWHEEL_HTTP_CAFILE"), "as roster.environment hands it on"
    assert engines_of("http://a,http://a/", wheel, var)[1] == ENGINE_CAFILE
    assert len(engines_of("http://a,http://a/", wheel, var)[0]) == 1
    found = [engine.url for engine in engines_of("http://a,dns+http://localhost:8000", wheel, var)[0]]
    assert {"http://a", "http://127.0.0.1:8000"} <= set(found), "each address of a name is an engine"
    told = {
        "dns+http://nowhere.invalid:1": "'http://nowhere.invalid:1' has no address",
        "dns+https://localhost:1": "certificates bear no addresses",
        "dns+http://localhost:abc": "is no URL",
        "dns+http://me:secret@localhost:1": "holds a name or password",
    }
    for url, reason in told.items():
        with pytest.raises(InvalidOption, match=reason) as caught:
            engines_of(url, wheel, var)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "cuda", "asked", "verdict", "words"),
    [
        (None, "13.2", "", Verdict.NOT_CHECKED, "use the processor"),
        (None, "13.2", "0", Verdict.WRONG, "GPU 0 is asked for"),
        (
            Driver("570.86.15", "12.8", ("NVIDIA L4",)),
            "13.2",
            "",
            Verdict.WRONG,
            "NVIDIA L4, driver 570.86.15",
        ),
        (
            Driver("580.95.05", "13.0", ("NVIDIA L4",)),
            "13.2",
            "0",
            Verdict.OK,
            "torch is built for CUDA 13.2",
        ),
        (Driver("570.86.15", "12.8"), None, "", Verdict.OK, "no torch for CUDA"),
    ],
)
def test_a_driver_must_suffice_for_the_torch_here(
    driver: Driver | None, cuda: str | None, asked: str, verdict: Verdict, words: str
) -> None:
    found = judge_device(driver, cuda, asked=asked)
    assert (found.about, found.verdict) == ("device", verdict)
    assert words in found.text
    assert bool(found.fix) == (verdict is Verdict.WRONG)


LOOKS = """
import asyncio
from tunewheel_cli.doctor.endpoints import look_at_bases
names = ["/models/own", "HuggingFaceTB/SmolLM2-135M-Instruct", "owner/gated", "owner/none"]
for one in asyncio.run(look_at_bases(names)).findings:
    print(one.about, one.verdict, one.text, one.fix, sep="|")
"""


@pytest.mark.parametrize(
    ("token", "where", "verdict", "said"),
    [
        ("hf_right", "HF_TOKEN", "ok", "gives owner/gated, which is gated, to the token of HF_TOKEN"),
        ("hf_right", "file", "ok", "gives owner/gated, which is gated, to the token of {file}"),
        ("hf_wrong", "HF_TOKEN", "wrong", "is gated, and the hub does not give it to the token of HF_TOKEN|"),
        ("", "HF_TOKEN", "not checked", "is gated, and no token is set|"),
    ],
)  # fmt: skip
def test_a_gated_base_is_told_with_where_its_token_is_from(
    tmp_path: Path, token: str, where: str, verdict: str, said: str
) -> None:
    """In a process of its own, because the hub's address is read when its package is imported. A password in
    it is not told."""
    home = tmp_path / "hub"
    with gated_hub(write_tiny_model(tmp_path / "model"), "hf_right") as url:
        secret = url.replace("//", "//bob:s3cret@") if token != "hf_right" else url
        environment = os.environ | {"HF_ENDPOINT": secret, "HF_HOME": str(home), "HF_TOKEN": token}
        environment.pop("HF_HUB_OFFLINE", None)
        if where == "file":
            home.mkdir()
            (home / "token").write_text(environment.pop("HF_TOKEN"))
        done = subprocess.run([sys.executable, "-c", LOOKS], env=environment, capture_output=True, text=True)
    gated, none = done.stdout.splitlines()
    assert gated.startswith(f"base|{verdict}|"), done.stderr
    assert said.format(file=home / "token") in gated
    if verdict != "ok":
        assert f"|accept its license at {url}/owner/gated, and set HF_TOKEN to a token" in gated
    assert none.startswith(f"base|{'wrong' if token else 'not checked'}|'owner/none' is not on this machine")
    assert "hf_" not in done.stdout + done.stderr
    assert "s3cret" not in done.stdout


@pytest.mark.parametrize("token", ["hf_right", ""])
def test_a_hub_that_must_not_be_asked_is_no_fault_of_a_base(tmp_path: Path, token: str) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_TOKEN": token}
    done = subprocess.run([sys.executable, "-c", LOOKS], env=environment, capture_output=True, text=True)
    (found,) = done.stdout.splitlines()
    assert found.startswith(
        "base|not checked|'owner/gated' was not asked for, because HF_HUB_OFFLINE is set|"
    )


@pytest.mark.parametrize(
    "first",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"HTTP/1.1 200 OK\r\nx-slow: ", b""],
    ids=["its body", "its headers", "its first line"],
)
def test_a_hub_that_trickles_holds_neither_the_look_nor_the_end_of_the_process(
    tmp_path: Path, first: bytes
) -> None:
    quick = "from tunewheel_basemodel import hub\nhub.HUB_SECONDS = 0.5\n"
    with trickling_hub(first) as url:
        environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path)}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-c", quick + LOOKS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    (found,) = done.stdout.splitlines()
    assert found.startswith("base|not checked|'owner/gated' is not on this machine and the Hugging Face hub")
    assert "does not answer" in found


AT_THE_START = """
import sys, threading
class Told(threading.Thread):
    def start(self):
        if self.name == "look at the hub":
            print(*sorted({"huggingface_hub.hf_api", "huggingface_hub.file_download"} - sys.modules.keys()))
        super().start()
threading.Thread = Told
"""


def test_the_seconds_of_a_look_at_the_hub_begin_after_the_import_of_its_library(tmp_path: Path) -> None:
    with gated_hub(write_tiny_model(tmp_path / "model"), "hf_right") as url:
        environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_right"}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-c", AT_THE_START + LOOKS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lacking, also, *found = done.stdout.splitlines()
    assert (lacking, also) == ("", ""), "what is imported while the seconds run"
    assert [line.partition("|")[0] for line in found] == ["base", "base"]


async def test_a_look_that_fails_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def broken(*_: object, **__: object) -> list[Finding]:
        raise RuntimeError("no such answer")

    monkeypatch.setattr(examination, "kafka_findings", broken)
    monkeypatch.setattr(examination, "newest_logged", broken)
    found = await examine(Installation({}, store_url=tmp_path.as_uri()))
    assert [(one.about, one.verdict) for one in found] == [
        ("kafka", Verdict.WRONG), ("store", Verdict.OK), ("engine", Verdict.NOT_CHECKED),
        ("device", found[3].verdict), ("clock", Verdict.OK),
    ]  # fmt: skip
    assert "RuntimeError: no such answer" in found[0].text
