"""What train, eval and monitor would say of the n-th candidate of a project."""

from __future__ import annotations

import json
import struct
from typing import Any

from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.scorecard import Contestant, Role
from tunewheel_runtime.store import ObjectStore

SHA = "0" * 64
BASE = BaseModelRef(name="HuggingFaceTB/SmolLM2-135M-Instruct", revision=f"sha256:{SHA}")


def artifact(path: str) -> ArtifactRef:
    return ArtifactRef(path=path, sha256=SHA, size_bytes=1)


def adapter_of(project: str, n: int, files: tuple[ArtifactRef, ...] = ()) -> AdapterRef:
    model_id = f"{project}-{n:012x}"
    return AdapterRef(
        model_id=model_id,
        path=f"adapters/{model_id}",
        files=files or (artifact(f"adapters/{model_id}/adapter_model.safetensors"),),
        base=BASE,
        method=TrainMethod.LORA,
    )


async def stored_adapter(store: ObjectStore, project: str, n: int) -> AdapterRef:
    """Put the files of an adapter of one zero into ``store``."""
    path = adapter_of(project, n).path
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + b"\0" * 4
    config = json.dumps({"peft_type": "LORA", "n": n}).encode()
    files = (
        await store.put(f"{path}/adapter_config.json", config),
        await store.put(f"{path}/adapter_model.safetensors", weights),
    )
    return adapter_of(project, n, files)


def _run(project: str, n: int, adapter: AdapterRef | None) -> dict[str, Any]:
    return {
        "project": project,
        "run_id": f"run-{n}",
        "dataset_id": f"ds-{n}",
        "dataset": artifact(f"datasets/ds-{n}/manifest.json"),
        "adapter": adapter or adapter_of(project, n),
        "criteria_sha256": SHA,
    }


def trained(project: str, n: int, *, adapter: AdapterRef | None = None) -> Envelope[TrainCompleted]:
    run = _run(project, n, adapter)
    manifest = artifact(f"runs/run-{n}/manifest.json")
    data = TrainCompleted(**run, manifest=manifest, final_loss=0.1, tokens=10, wall_seconds=1.0)
    return new_event(data, source="/test")


def passed(
    project: str, n: int, *, adapter: AdapterRef | None = None, against: int | None = None
) -> Envelope[EvalPassed]:
    """The first verdict on candidate ``n``: better than the one before it. With ``against`` it is that of
    another evaluation, against that one; 0: against the base alone."""
    champion = n - 1 if against is None else against
    beaten = Contestant(role=Role.CHAMPION, model_id=adapter_of(project, champion).model_id, metrics={})
    data = EvalPassed(
        **_run(project, n, adapter),
        scorecard=artifact(f"scorecards/sc-{n}.json"),
        contestants=(beaten,) if champion else (),
        checks=(),
        evaluation_id=None if against is None else f"evaluation-{n}-{against}",
    )
    return new_event(data, source="/test")


def rejected(project: str, n: int) -> Envelope[EvalFailed]:
    """What eval says after a person rejected candidate ``n``."""
    told = passed(project, n).data.model_dump(exclude={"principal"})
    return new_event(EvalFailed(**told, reasons=("rejected by ada",), field="review"), source="/test")


def judged(project: str, n: int, stage: str, verdict: str) -> Envelope[RolloutJudged]:
    values = {
        "project": project,
        "model_id": adapter_of(project, n).model_id,
        "stage": stage,
        "generation": 1,
        "verdict": verdict,
        "requests": 30,
        "candidate": {},
        "champion": {},
        "reasons": ("invalid outputs rose",) if verdict == "failed" else (),
    }
    return new_event(RolloutJudged.model_validate(values), source="/test")
