"""Makes the events about the candidates of one project, with no more in them than a service needs."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import BY_NAME

from tunewheel_testing.adapters import BASE, SHA, adapter_of, artifact, bundle_of
from tunewheel_testing.specs import spec_of

CHECK = {
    "criterion": {"metric": "rouge_l", "minimum": 0.1}, "observed": 0.5, "passed": True,
    "reason": "0.5 >= 0.1",
}  # fmt: skip
ANSWERS = {
    "figure": "answers", "candidate": 0.0, "champion": 0.0, "low": -0.1, "high": 0.04, "margin": 0.05,
}  # fmt: skip


class Desk:
    """Makes the events of ``project``; candidate ``n`` is the n-th run."""

    def __init__(
        self, project: str = "desk", *, rollout: RolloutSpec | None = None, base: BaseModelRef = BASE
    ) -> None:
        self.project, self.rollout, self.base = project, rollout or RolloutSpec(), base

    def event(self, data: Any, cause: Envelope[Any] | None = None) -> Envelope[Any]:
        return new_event(data, source="/test", cause=cause)

    def say(self, topic: str, cause: Envelope[Any] | None = None, /, **fields: Any) -> Envelope[Any]:
        """Return an event of ``fields`` alone."""
        data = BY_NAME[topic].event.model_validate({"project": self.project} | fields)
        return self.event(data, cause)

    def spec(self) -> ProjectSpec:
        return spec_of(self.project, rollout=self.rollout, base_model=self.base.name)

    def declared(self, **task: Any) -> Envelope[Any]:
        spec = self.spec()
        told = spec.model_copy(update={"task": spec.task.model_copy(update=task)}) if task else spec
        return self.say("project.declared", spec=told)

    def model_id(self, n: int = 1) -> str:
        return f"{self.project}-{n:012x}"

    def adapter(self, n: int = 1, **changes: Any) -> AdapterRef:
        return adapter_of(self.model_id(n), **({"base": self.base} | changes))

    def bundle(self, n: int = 1) -> Bundle:
        """Return what was judged of candidate ``n``."""
        return bundle_of(self.model_id(n), base=self.base, system_prompt=f"Prompt {n}.")

    def run(self, n: int = 1, *, adapter: AdapterRef | None = None, **changes: Any) -> dict[str, Any]:
        """Return what every event of the run names. ``changes`` are fields of its adapter."""
        dataset = artifact(f"datasets/ds-{n}/manifest.json")
        names = {"run_id": f"run-{n}", "dataset_id": f"ds-{n}", "dataset": dataset, "criteria_sha256": SHA}
        return names | {"adapter": adapter or self.adapter(n, **changes)}

    def trained(self, n: int = 1, **changes: Any) -> Envelope[Any]:
        manifest = artifact(f"runs/run-{n}/manifest.json")
        costs = {"manifest": manifest, "final_loss": 0.1, "tokens": 10, "wall_seconds": 1.0}
        return self.say("train.completed", **self.run(n, **changes), **costs)

    def verdict(self, n: int = 1, *, against: int | None = None, **changes: Any) -> dict[str, Any]:
        """Return the fields of the first verdict on candidate ``n``: it is compared with the one before it.
        With ``against`` they are those of another evaluation, against that version; 0: against the base
        alone."""
        champion = n - 1 if against is None else against
        beaten = {"role": "champion", "model_id": self.model_id(champion), "metrics": {}}
        told = {"contestants": (beaten,) if champion else (), "checks": (CHECK,)}
        if against is not None:
            told["evaluation_id"] = f"evaluation-{n}-{against}"
        return self.run(n, **changes) | told | {"scorecard": artifact(f"scorecards/sc-{n}.json")}

    def passed(
        self, n: int = 1, *, by: str | None = None, bundle: Bundle | None = None, **changes: Any
    ) -> Envelope[Any]:
        return self.say("eval.passed", **self.verdict(n, **changes), **_review(by), bundle=bundle)

    def failed(
        self, n: int = 1, *, reasons: tuple[str, ...] = ("rouge_l 0.05 < 0.1",), field: str | None = None,
        by: str | None = None, **changes: Any,
    ) -> Envelope[Any]:  # fmt: skip
        told = {"reasons": reasons, "field": field} | _review(by)
        return self.say("eval.failed", **self.verdict(n, **changes), **told)

    def undecided(
        self, n: int, *, against: int | None = None, cause: Envelope[Any] | None = None, judged: bool = True,
        of_share: bool | None = None, **bounds: Any,
    ) -> Envelope[Any]:  # fmt: skip
        """A verdict that cannot tell, by a criterion with ``bounds``; not ``judged``: every held-out row was
        looked at too often. ``of_share``: whether the metric is a share."""
        verdict = self.verdict(n, against=against) | ({} if judged else {"contestants": ()})
        open_one = CHECK | {"criterion": {"metric": "label_accuracy"} | (bounds or {"over_champion": -0.05})}
        open_one |= {"passed": False, "outcome": "undecided", "of_share": of_share}
        checks = (open_one,) if judged else ()
        told = {"reasons": ("too few rows",), "field": None if judged else "holdout", "checks": checks}
        return self.say("eval.undecided", cause, **(verdict | told))

    def judged(
        self, n: int, stage: str, verdict: str, generation: int = 0, decided_by: str | None = None,
        compared: bool = True,
    ) -> Envelope[Any]:  # fmt: skip
        """A judgement of a trial; ``compared``: in shadow, its answers were compared with the champion's."""
        bounds = (ANSWERS,) if compared and stage == "shadow" else ()
        reasons = ("invalid outputs rose by 0.4",) if verdict == "failed" else ()
        return self.say(
            "rollout.judged", model_id=self.model_id(n), stage=stage, generation=generation, verdict=verdict,
            requests=30, candidate={}, champion={}, reasons=reasons, decided_by=decided_by,
            bounds=bounds,
        )  # fmt: skip

    def commanded(
        self, n: int, action: str, *, request: str = "one", by: str | None = None, **changes: Any
    ) -> Envelope[Any]:
        """A person's command on version ``n``; ``by`` is the name of their key."""
        told: dict[str, Any] = {"action": action, "reason": "because of refunds", "request": request}
        named = {"model_id": self.model_id(n), "principal": {"name": by} if by else None}
        return self.say("model.commanded", **(told | named | changes))


def _review(by: str | None) -> dict[str, Any]:
    return {} if by is None else {"reviewed_by": "Ada", "principal": {"name": by} if by else None}
