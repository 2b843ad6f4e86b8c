"""Jobs through the real client, against an API of batch/v1 that keeps them in memory."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_train.launching.jobs import EXIT_STOPPED, JobRefused, Jobs, JobState, job_of, read_template
from tunewheel_train.runs.slots import ALONE, Node, node_of

TEMPLATE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"namespace": "ml", "labels": {"team": "a"}},
    "spec": {
        "backoffLimit": 5,
        "template": {
            "spec": {"containers": [{"name": "proxy"}, {"name": "train", "args": ["--x"], "image": "i"}]}
        },
    },
}


class Api:
    """``refuses``: the status and message of every answer."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.refuses: tuple[int, str] | None = None

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        if self.refuses:
            return self._status(*self.refuses)
        if name in self.jobs:
            return self._status(409, "AlreadyExists")
        self.jobs[name] = body | {"status": {}}
        return web.json_response(self.jobs[name], status=201)

    async def read(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["name"])
        return web.json_response(job) if job else self._status(404, "NotFound")

    async def patch(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["name"])
        if job is None:
            return self._status(404, "NotFound")
        told = await request.json()
        job["spec"] |= told["spec"]
        for name, value in told["metadata"]["annotations"].items():
            annotations = job["metadata"].setdefault("annotations", {})
            annotations.pop(name, None)
            annotations |= {name: value} if value is not None else {}
        return web.json_response(job)

    def _status(self, code: int, reason: str) -> web.Response:
        return web.json_response(
            {"kind": "Status", "message": reason, "reason": reason, "code": code}, status=code
        )


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    api = Api()
    app = web.Application()
    jobs = "/apis/batch/v1/namespaces/ml/jobs"
    app.add_routes(
        [
            web.post(jobs, api.create),
            web.get(jobs + "/{name}", api.read),
            web.patch(jobs + "/{name}", api.patch),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://{host}:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield api
    await runner.cleanup()


@pytest.fixture
async def jobs(api: Api) -> AsyncIterator[Jobs]:
    jobs = Jobs(TEMPLATE)
    yield jobs
    await jobs.close()


async def test_a_job_has_one_node_where_that_is_asked_for_and_else_as_many_as_runs_have(api: Api):
    jobs = Jobs(TEMPLATE, nodes=3)
    await jobs.ensure("sweep-1", labels={}, one_node=True)
    await jobs.ensure("run-1", labels={})
    assert [api.jobs[name]["spec"].get("parallelism") for name in ("sweep-1", "run-1")] == [None, 3]
    await jobs.close()


async def test_a_job_is_made_once_looked_at_and_suspended(api: Api, jobs: Jobs):
    assert await jobs.state("run-1") is None
    await jobs.ensure("run-1", labels={"tunewheel.io/project": "p"})
    await jobs.ensure("run-1", labels={"tunewheel.io/project": "p"})
    assert await jobs.state("run-1") == JobState()
    await jobs.pause("run-1", paused=True)
    assert await jobs.state("run-1") == JobState(paused=True)
    await jobs.pause("run-1", paused=False)
    api.jobs["run-1"]["spec"]["suspend"] = True  # by a queue, which gives it room when there is some
    assert await jobs.state("run-1") == JobState()
    api.jobs["run-1"]["status"] = {
        "conditions": [
            {"type": "FailureTarget", "status": "True", "reason": "x", "message": "y"},
            {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"},
        ]
    }
    assert await jobs.state("run-1") == JobState(failure="BackoffLimitExceeded: too often")
    await jobs.pause("gone", paused=True)
    api.jobs["run-1"]["spec"]["parallelism"] = 2
    api.jobs["run-1"]["status"] = {"ready": 1}  # the other one is replaced
    assert (await jobs.state("run-1")).begun


async def test_what_the_cluster_refuses_is_told_and_tried_again(api: Api, jobs: Jobs):
    api.refuses = (403, "jobs.batch is forbidden: exceeded quota")
    with pytest.raises(TransientError, match="exceeded quota"):
        await jobs.ensure("run-1", labels={})


async def test_a_conflict_about_a_quota_is_no_job_and_an_invalid_one_is_refused(api: Api, jobs: Jobs):
    api.refuses = (409, "Conflict")
    with pytest.raises(TransientError, match="409"):
        await jobs.ensure("run-1", labels={})
    api.refuses = (422, "spec.template: Invalid value")
    with pytest.raises(JobRefused, match="Invalid value"):
        await jobs.ensure("run-1", labels={})


async def test_a_cluster_that_does_not_answer_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    jobs = Jobs(TEMPLATE)
    with pytest.raises(TransientError, match="set KUBECONFIG"):
        await jobs.state("run-1")


def test_a_job_keeps_what_the_template_says_and_gets_what_it_leaves_out():
    job = job_of(TEMPLATE, "run-1", labels={"tunewheel.io/project": "p"})
    assert job["metadata"] == {
        "namespace": "ml", "name": "run-1", "labels": {"team": "a", "tunewheel.io/project": "p"},
    }  # fmt: skip
    assert job["spec"]["backoffLimit"] == 5
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert [one.get("args") for one in pod["containers"]] == [None, ["--x", "run-1"]]
    stopped = job["spec"]["podFailurePolicy"]["rules"][1]
    assert (stopped["action"], stopped["onExitCodes"]["values"]) == ("Ignore", [EXIT_STOPPED])
    assert "name" not in TEMPLATE["metadata"]


def test_several_nodes_are_an_indexed_job_whose_pods_meet_at_the_first():
    template = copy.deepcopy(TEMPLATE)
    pod = template["spec"]["template"]["spec"]
    pod["subdomain"] = "runs"
    pod["containers"][1]["env"] = [{"name": "A", "value": "b"}, {"name": "MASTER_ADDR", "value": "c"}]
    spec = job_of(template, "run-1", labels={}, nodes=3)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert spec["backoffLimit"] == 3 * TEMPLATE["spec"]["backoffLimit"]
    proxy, train = spec["template"]["spec"]["containers"]
    assert "env" not in proxy
    told = {one["name"]: one["value"] for one in train["env"]}
    assert told == {"A": "b", "TUNEWHEEL_TRAIN_NODES": "3", "MASTER_ADDR": "run-1-0.runs"}
    assert len(train["env"]) == 3
    for rank in range(3):  # JOB_COMPLETION_INDEX is Kubernetes' own
        assert node_of(3, told | {"JOB_COMPLETION_INDEX": str(rank)}) == Node(rank, 3, "run-1-0.runs")
    one = job_of(template, "run-1", labels={})["spec"]
    assert "completionMode" not in one
    assert node_of(1, {}) == ALONE


def test_a_job_keeps_its_number_of_nodes_when_the_setting_changes():
    pod = job_of(TEMPLATE, "run-1", labels={})["spec"]["template"]["spec"]
    (train,) = [one for one in pod["containers"] if one["name"] == "train"]
    assert train["env"] == [{"name": "TUNEWHEEL_TRAIN_NODES", "value": "1"}]
    # a Job of before an upgrade says no number, and its next pod reads the new setting
    assert node_of(2, {}) == ALONE


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MASTER_ADDR": "a"}, "JOB_COMPLETION_INDEX is missing"),
        ({"JOB_COMPLETION_INDEX": "2", "MASTER_ADDR": "a"}, "JOB_COMPLETION_INDEX is 2"),
        ({"JOB_COMPLETION_INDEX": "1"}, "MASTER_ADDR, where they meet, is missing"),
    ],
)
def test_a_pod_that_does_not_know_its_place_is_refused(environment: dict[str, str], said: str):
    with pytest.raises(InvalidSetting, match=said) as caught:
        node_of(2, environment)
    assert caught.value.field == "train_nodes"


def test_pods_that_could_not_find_each_other_are_refused(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(TEMPLATE))
    assert read_template(path) == TEMPLATE
    with pytest.raises(
        InvalidSetting, match=r"lacks spec.template.spec.subdomain.*TUNEWHEEL_TRAIN_NODES is 2"
    ):
        read_template(path, nodes=2)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "cannot be read"),
        ("apiVersion: v1\nkind: Pod", "is no Job"),
        ("apiVersion: batch/v1\nkind: Job", "lacks spec.template.spec.containers"),
        (
            yaml.safe_dump(TEMPLATE | {"spec": {"template": {"spec": {"containers": [{"name": "main"}]}}}}),
            "no container named train, only main",
        ),
    ],
)
def test_a_template_that_cannot_work_is_refused_by_name(tmp_path: Path, written: str, said: str):
    path = tmp_path / "job.yaml"
    path.write_text(written)
    with pytest.raises(InvalidSetting, match=said) as caught:
        read_template(path)
    assert caught.value.field == "train_job_template"


def test_a_template_that_is_not_there_is_refused_by_name(tmp_path: Path):
    with pytest.raises(InvalidSetting, match="cannot be read"):
        read_template(tmp_path / "none.yaml")
