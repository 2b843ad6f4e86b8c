"""Runs and sweeps trained by Jobs of a real API server: the service and its Jobs are pods of the chart's, run
here with their own environment, files and service account, on a node with two GPUs' worth of room.

Not part of ``make test``, hence the file's name. The worker is the light one of the service's tests.
"""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested, TrainAction, TrainStarted
from tunewheel_contracts.formats.sweep import SweepState
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.signatures import Signatures
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.run_controls import make_control, train_again
from tunewheel_testing.sender import publish_events
from tunewheel_testing.tiny import write_tiny_model

from ..integration.bus import Bus
from ..integration.bus import until as until_soon
from ..integration.test_train import Ground
from .control_plane import ControlPlane
from .kubelet import HERE, Container, Kubelet, claim_folder
from .pods import Pod, path_of
from .release import OPERATOR, Release, without_others
from .tools import EXAMPLES

NAMESPACE = "training"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
ALL_GPUS = 16
VALUES = {
    "services": without_others("train")
    | {
        "train": {
            **HERE,
            "jobs": {"enabled": True, "gpus": 2, "backoffLimit": 0},
            "settings": {"job_poll_seconds": 0.2, "train_threads": 1, "progress_seconds": 0.0},
            # A run that begins waits behind its first checkpoint for a signal; one that is resumed ends.
            "extraEnv": [{"name": "LIGHT_WAIT", "value": "1"}],
        }
    },
}
COMMANDS = {
    f"tunewheel-{name}": (
        sys.executable,
        str(Path(__file__).with_name("container.py")),
        f"tunewheel_train.{module}",
    )
    for name, module in {"train": "main", "train-run": "one_run"}.items()
}


class Wheel:
    """The release, and what a test does to it."""

    def __init__(self, plane: ControlPlane, kubelet: Kubelet, ground: Ground, bus: Bus, project: str) -> None:
        self.plane = plane
        self._console = console_of(plane, ground.folder / "identity")
        self.bus = bus
        self._kubelet = kubelet
        self._ground = ground
        self._project = project
        self.options = {"bootstrap_servers": ground.kafka}

    async def launch(self) -> TrainStarted:
        """Have a version trained until its run waits behind a checkpoint, which lies in the store."""
        await self.bus.publish(await self._ground.dataset(self._project))
        (started,) = await self.bus.collect(topics.TRAIN_STARTED, 1, where=self.is_own)
        await until_soon(lambda: self.checkpoints(started.data.run_id))
        return started.data

    def is_own(self, event: Any) -> bool:
        return event.data.project == self._project

    async def completed(self) -> Any:
        (event,) = await self.bus.collect(topics.TRAIN_COMPLETED, 1, where=self.is_own)
        starts = await self.bus.collect(topics.TRAIN_STARTED, 2, where=self.is_own)
        assert starts[-1].data.resumed_from_step >= 2, "it goes on from the checkpoint that the last pod left"
        assert (self._ground.folder / "store" / event.data.manifest.path).is_file()
        return event.data

    async def failed(self) -> Any:
        (event,) = await self.bus.collect(topics.TRAIN_FAILED, 1, where=self.is_own)
        return event.data

    async def command(self, run_id: str, action: TrainAction) -> None:
        who = Principal(name=OPERATOR)
        command = make_control(self._project, run_id, action, action.value, principal=who)
        await self._sign_and_publish(command)

    async def sweep(self, dataset_id: str, *recipes: dict[str, Any]) -> str:
        """Ask for a sweep; return its id."""
        sweep_id = f"sweep-{self._project}"
        asked = SweepRequested(
            project=self._project, sweep_id=sweep_id, dataset_id=dataset_id, recipes=recipes, max_hours=100.0,
            request="one", principal=Principal(name=OPERATOR),
        )  # fmt: skip
        await self._sign_and_publish(new_event(asked, source="/test"))
        return sweep_id

    async def _sign_and_publish(self, command: Envelope[Any]) -> None:
        await publish_events(self.options, self._console.sign(command))

    async def swept(self, state: SweepState, measured: int) -> SweepProgressed:
        """Return how the sweep stands once it is in ``state`` after so many measurements."""

        def is_it(event: Envelope[SweepProgressed]) -> bool:
            return self.is_own(event) and (event.data.state, event.data.measured) == (state, measured)

        (event,) = await self.bus.collect(topics.SWEEP_PROGRESSED, 1, where=is_it)
        return event.data

    def job(self, **labels: str) -> dict[str, Any]:
        """Return the only one of the project, or of those with ``labels``."""
        (found,) = self._jobs(**labels)
        return found

    def jobs(self) -> set[str]:
        return {one["metadata"]["name"] for one in self._jobs()}

    def _jobs(self, **labels: str) -> list[dict[str, Any]]:
        wanted = {"project": self._project, **labels}
        selector = ",".join(f"tunewheel.io/{label}={value}" for label, value in wanted.items())
        return self.plane.items(JOBS, labelSelector=selector)

    def running(self) -> list[Container]:
        return self._kubelet.running(lambda pod: label_of(pod) == self._project)

    def checkpoints(self, run_id: str) -> list[Path]:
        """Return those that lie in the store."""
        folder = self._ground.folder / "store" / "runs" / run_id / "checkpoints"
        return list(folder.glob("*/checkpoint.json"))


def console_of(plane: ControlPlane, folder: Path) -> Signatures:
    """Return what signs as the release's console does, with the key of the release's Secret."""
    folder.mkdir(exist_ok=True)
    core = f"/api/v1/namespaces/{NAMESPACE}"
    private = plane.get(f"{core}/secrets/tunewheel-signing")["data"]["console"]
    (folder / "signing-key-console").write_bytes(base64.b64decode(private))
    public = plane.get(f"{core}/configmaps/tunewheel-signing")["data"]["signing-keys.json"]
    (folder / "signing-keys.json").write_text(public)
    return CommandKeys.of_wheel(folder)


def label_of(pod: Pod) -> str | None:
    return pod["metadata"]["labels"].get("tunewheel.io/project")


@pytest.fixture(scope="module")
def ground(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("training")
    store = claim_folder(folder, "wheel-tunewheel-store")
    store.mkdir(parents=True)
    (folder / "store").symlink_to(store)
    return Ground(kafka, folder, str(write_tiny_model(folder / "base")))


@pytest.fixture(scope="module")
def kubelet(plane: ControlPlane, helm: str, chart: Path, ground: Ground) -> Iterator[Kubelet]:
    """With the release on it, available."""
    values = ground.folder / "values.yaml"
    told = {"kafka": {"bootstrapServers": ground.kafka}}
    values.write_text(yaml.safe_dump(yaml.safe_load(EXAMPLES["minimal"].read_text()) | told | VALUES))
    with Kubelet(plane, ground.folder, COMMANDS) as found:
        release = Release(plane, helm, chart, values, NAMESPACE).prepare()
        release.helm("install")
        release.until_available()
        yield found
        release.remove()


@pytest.fixture
async def wheel(plane: ControlPlane, kubelet: Kubelet, ground: Ground, project: str) -> AsyncIterator[Wheel]:
    async with Bus(ground.kafka) as bus:
        yield Wheel(plane, kubelet, ground, bus, project)


async def test_a_run_that_is_preempted_goes_on_in_another_pod_and_completes(wheel: Wheel) -> None:
    started = await wheel.launch()
    preemptor = preempt(wheel.plane)
    await until_soon(lambda: not wheel.running())
    await until_soon(lambda: is_waiting(wheel))  # until what took its GPUs is gone
    wheel.plane.delete(f"{PODS}/{preemptor}")
    completed = await wheel.completed()
    assert completed.run_id == started.run_id
    await until_soon(lambda: has_condition(wheel.job(), "Complete"))
    assert wheel.job()["spec"]["backoffLimit"] == 0, "the pod that was told to end cost no attempt"


def preempt(plane: ControlPlane) -> str:
    """Ask for all GPUs of the node, by a pod that goes before runs; return its name."""
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}}
    plane.apply("/apis/scheduling.k8s.io/v1/priorityclasses", urgent | {"value": 1_000})
    secured = {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
        "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {
        "name": "urgent", "image": "urgent", "command": ["sleep", "3600"], "securityContext": secured,
        "resources": {"limits": {"nvidia.com/gpu": ALL_GPUS}},
    }  # fmt: skip
    spec = {
        **HERE,
        "priorityClassName": "urgent",
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "urgent"}, "spec": spec}
    return plane.apply(PODS, pod)["metadata"]["name"]


def is_waiting(wheel: Wheel) -> bool:
    """Tell whether the Job's next pod waits for a node."""
    name = wheel.job()["metadata"]["name"]
    pods = wheel.plane.items(PODS, labelSelector=f"batch.kubernetes.io/job-name={name}")
    return any(pod["status"]["phase"] == "Pending" and "nodeName" not in pod["spec"] for pod in pods)


def has_condition(job: dict[str, Any], kind: str) -> bool:
    return any(one["type"] == kind and one["status"] == "True" for one in job["status"].get("conditions", ()))


async def test_a_run_that_is_paused_holds_no_pod_until_it_is_resumed(wheel: Wheel) -> None:
    started = await wheel.launch()
    await wheel.command(started.run_id, TrainAction.PAUSE)
    await until_soon(lambda: wheel.job()["spec"]["suspend"] and not wheel.running())
    await until_soon(lambda: not wheel.job()["status"].get("active"))
    await wheel.command(started.run_id, TrainAction.RESUME)
    assert (await wheel.completed()).run_id == started.run_id


@pytest.mark.parametrize("how", ["killed", "deleted"])
async def test_a_run_whose_job_fails_or_is_deleted_fails_and_sent_once_more_completes(
    wheel: Wheel, how: str
) -> None:
    started = await wheel.launch()
    job = wheel.job()["metadata"]["name"]
    if how == "killed":
        (container,) = wheel.running()
        container.process.send_signal(signal.SIGKILL)
    else:
        wheel.plane.delete(f"{JOBS}/{job}", propagationPolicy="Background")
    failed = await wheel.failed()
    said = "BackoffLimitExceeded" if how == "killed" else "was deleted"
    assert (failed.run_id, failed.field) == (started.run_id, "(run)")
    assert said in failed.reason
    assert job in failed.reason
    await until_soon(lambda: not wheel.running())
    assert await train_again(started.run_id, wheel.options)
    assert (await wheel.completed()).run_id == started.run_id
    assert wheel.jobs() - {job}


async def test_a_sweep_is_a_job_and_a_pod_that_is_deleted_loses_no_measured_run(wheel: Wheel) -> None:
    run = await wheel.launch()
    await wheel.command(run.run_id, TrainAction.CANCEL)
    await wheel.failed()
    await until_soon(lambda: not wheel.running())
    # The first recipe has no checkpoint before its end, so it never waits. The second waits behind one.
    sweep_id = await wheel.sweep(
        run.dataset_id, {"learning_rate": 1e-3, "checkpoint_steps": 100}, {"learning_rate": 1e-2}
    )
    before = await wheel.swept(SweepState.TRAINING, 1)
    first, second = (one.run_id for one in before.runs)
    await until_soon(lambda: wheel.checkpoints(second))
    (container,) = wheel.running()
    wheel.plane.delete(path_of(container.pod))
    ended = await wheel.swept(SweepState.COMPLETED, 2)
    assert ended.runs[0] == before.runs[0]
    assert [(one.run_id, one.part) for one in ended.runs] == [(first, 1.0), (second, 1.0)]
    assert (ended.best, ended.reason) == (first, "")
    await until_soon(lambda: has_condition(wheel.job(sweep=sweep_id), "Complete"))
    assert not wheel.running()
    assert not [*wheel.checkpoints(first), *wheel.checkpoints(second)]


def test_what_asks_for_jobs_may_do_that_and_nothing_else(plane: ControlPlane, kubelet: Kubelet) -> None:
    (service,) = kubelet.running(
        lambda pod: pod["spec"]["containers"][0]["name"] == "train" and label_of(pod) is None
    )
    account = service.pod["spec"]["serviceAccountName"]
    spec = {"user": f"system:serviceaccount:{NAMESPACE}:{account}", "groups": ["system:authenticated"]}
    allowed = {
        (group, resource, verb)
        for group, resource in (("batch", "jobs"), ("", "pods"), ("", "secrets"), ("", "configmaps"))
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
        if may(plane, spec, {"namespace": NAMESPACE, "group": group, "resource": resource, "verb": verb})
    }
    assert allowed == {("batch", "jobs", verb) for verb in ("get", "create", "patch")}
    assert not may(plane, spec, {"namespace": "default", "group": "batch", "resource": "jobs", "verb": "get"})


def may(plane: ControlPlane, spec: dict[str, Any], wanted: dict[str, str]) -> bool:
    kind = "SubjectAccessReview"
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": kind,
        "spec": spec | {"resourceAttributes": wanted},
    }
    return plane.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"]
