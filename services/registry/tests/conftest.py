"""Events of one small project, as the registry would meet them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided
from tunewheel_contracts.events.lifecycle import ModelCommanded
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.bundle import Bundle, Decoding
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.rollout_spec import CanaryPolicy, RolloutSpec, ShadowPolicy
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.scorecard import Contestant, CriterionCheck, Role
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.store import ObjectStore

SHA = "0" * 64
BASE = BaseModelRef(name="org/Tiny-Base", revision=f"sha256:{SHA}")


def artifact(path: str) -> ArtifactRef:
    return ArtifactRef(path=path, sha256=SHA, size_bytes=1)


@dataclass(frozen=True)
class Desk:
    """Makes the events of project ``desk``; candidate ``n`` is the n-th run."""

    project: str = "desk"
    rollout: RolloutSpec = field(default_factory=RolloutSpec)

    def spec(self) -> ProjectSpec:
        return ProjectSpec(
            project=self.project,
            base_model=BASE.name,
            task=TaskSpec(system_prompt="Answer as JSON."),
            criteria=(Criterion(metric="rouge_l", minimum=0.1),),
            rollout=self.rollout,
        )

    def model_id(self, n: int) -> str:
        return f"{self.project}-{n:012x}"

    def adapter(self, n: int, **changes: Any) -> AdapterRef:
        model_id = self.model_id(n)
        file = artifact(f"adapters/{model_id}/adapter_model.safetensors")
        values = {"model_id": model_id, "path": f"adapters/{model_id}", "files": (file,), "base": BASE}
        return AdapterRef(**(values | {"method": TrainMethod.LORA} | changes))

    def trained(self, n: int, **changes: Any) -> Envelope[TrainCompleted]:
        data = TrainCompleted(
            project=self.project,
            run_id=f"run-{n}",
            dataset_id=f"ds-{n}",
            dataset=artifact(f"datasets/ds-{n}/manifest.json"),
            manifest=artifact(f"runs/run-{n}/manifest.json"),
            criteria_sha256=SHA,
            adapter=self.adapter(n, **changes),
            final_loss=0.1,
            tokens=10,
            wall_seconds=1.0,
        )
        return new_event(data, source="/test")

    def _verdict(self, n: int, **changes: Any) -> dict[str, Any]:
        criterion = Criterion(metric="rouge_l", minimum=0.1)
        check = CriterionCheck(criterion=criterion, observed=0.5, passed=True, reason="0.5 >= 0.1")
        return {
            "project": self.project,
            "run_id": f"run-{n}",
            "dataset_id": f"ds-{n}",
            "dataset": artifact(f"datasets/ds-{n}/manifest.json"),
            "adapter": self.adapter(n, **changes),
            "scorecard": artifact(f"scorecards/sc-{n}.json"),
            "criteria_sha256": SHA,
            "contestants": (),
            "checks": (check,),
        }

    def passed(
        self,
        n: int,
        *,
        by: str | None = None,
        bundle: Bundle | None = None,
        against: int | None = None,
        **changes: Any,
    ) -> Envelope[EvalPassed]:
        """The first verdict on candidate ``n``: better than the version before. With ``against`` it is that
        of another evaluation, against that version; 0: against the base alone."""
        verdict = self._verdict(n, **changes) | self._evaluation(n, against)
        return new_event(EvalPassed(**verdict, **_review(by), bundle=bundle), source="/test")

    def _evaluation(self, n: int, against: int | None) -> dict[str, Any]:
        champion = n - 1 if against is None else against
        beaten = (Contestant(role=Role.CHAMPION, model_id=self.model_id(champion), metrics={}),)
        other = {} if against is None else {"evaluation_id": f"evaluation-{n}-{against}"}
        return {"contestants": beaten if champion else ()} | other

    def bundle(self, n: int) -> Bundle:
        """What was judged of candidate ``n``."""
        return Bundle(
            base=BASE,
            model_id=self.model_id(n),
            adapter_sha256=SHA,
            template_sha256=SHA,
            system_prompt=f"Prompt {n}.",
            decoding=Decoding(),
            max_output_tokens=32,
            precision="float32",
        )

    def failed(
        self,
        n: int,
        *,
        reasons: tuple[str, ...] = ("rouge_l 0.05 < 0.1",),
        field: str | None = None,
        by: str | None = None,
        against: int | None = None,
    ) -> Envelope[EvalFailed]:
        verdict = self._verdict(n) | self._evaluation(n, against)
        data = EvalFailed(**verdict, reasons=reasons, field=field, **_review(by))
        return new_event(data, source="/test")

    def undecided(
        self, n: int, *, against: int, cause: Envelope[Any] | None = None, judged: bool = True
    ) -> Envelope[EvalUndecided]:
        """A verdict that cannot tell; not ``judged``: every held-out row was looked at too often."""
        verdict = self._verdict(n) | self._evaluation(n, against) | ({} if judged else {"contestants": ()})
        data = EvalUndecided(**verdict, reasons=("too few rows",), field=None if judged else "holdout")
        return new_event(data, source="/test", cause=cause)

    def judged(
        self, n: int, stage: str, verdict: str, generation: int = 0, decided_by: str | None = None
    ) -> Envelope[RolloutJudged]:
        data = RolloutJudged.model_validate(
            {
                "project": self.project,
                "model_id": self.model_id(n),
                "stage": stage,
                "generation": generation,
                "verdict": verdict,
                "requests": 30,
                "candidate": {},
                "champion": {},
                "reasons": ("invalid outputs rose by 0.4",) if verdict == "failed" else (),
                "decided_by": decided_by,
            }
        )
        return new_event(data, source="/test")

    def commanded(
        self, n: int, action: str, *, request: str = "one", by: str | None = None, **changes: Any
    ) -> Envelope[ModelCommanded]:
        """A person's command on version ``n``; ``by`` is the name of their key."""
        values = {
            "project": self.project,
            "model_id": self.model_id(n),
            "action": action,
            "reason": "because of refunds",
            "request": request,
            "principal": Principal(name=by) if by else None,
        }
        return new_event(ModelCommanded(**(values | changes)), source="/test")

    def declared(self) -> Envelope[ProjectDeclared]:
        return new_event(ProjectDeclared(project=self.project, spec=self.spec()), source="/test")


def _review(by: str | None) -> dict[str, Any]:
    return {} if by is None else {"reviewed_by": "Ada", "principal": Principal(name=by) if by else None}


def rollout(
    *, shadow: bool = False, canary: bool = True, percent: int = 20, shadow_percent: int = 100
) -> RolloutSpec:
    return RolloutSpec(
        shadow=ShadowPolicy(enabled=shadow, percent=shadow_percent),
        canary=CanaryPolicy(enabled=canary, percent=percent),
    )


@pytest.fixture(name="desk")
def make_desk() -> Desk:
    return Desk()


@pytest.fixture
def wheel(desk: Desk, tmp_path: Path) -> Any:
    from .wheel import Wheel

    return Wheel(desk, ObjectStore((tmp_path / "store").as_uri()))


@pytest.fixture(name="make_desk", scope="session")
def make_desk_of() -> Any:
    """Return a maker of desks: ``make_desk(shadow=…, canary=…, percent=…, project=…)``."""

    def make(*, project: str = "desk", **policy: Any) -> Desk:
        return Desk(project=project, rollout=rollout(**policy))

    return make
