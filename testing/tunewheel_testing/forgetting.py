"""The outcome of an erasure: which services have carried it out, which have not answered, and what
remains."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.topics import ERASURE_COMPLETED, TRAIN_COMPLETED

from tunewheel_testing.reading import follow


@dataclass
class Outcome:
    """The outcome of one request, folded from the log. A request that is repeated under the same name has
    proofs already."""

    project: str
    erasure_id: str
    event_id: str
    """The id of the ``erasure.requested`` event."""
    proofs: dict[str, ErasureCompleted] = field(default_factory=dict[str, ErasureCompleted])
    """By holder, its last proof."""
    trained: dict[str, str] = field(default_factory=dict[str, str])
    """By adapter, the dataset version on which it was trained."""

    def apply(self, event: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing."""
        match event.data:
            case ErasureCompleted(project=self.project, erasure_id=self.erasure_id) as proof:
                # eval's cause is curate's proof, which precedes it in the topic's single partition
                if event.causation_id == self.event_id or (
                    proof.holder == "eval" and "curate" in self.proofs
                ):
                    self.proofs[proof.holder] = proof
            case TrainCompleted(project=self.project) as run:
                self.trained[run.adapter.model_id] = run.dataset_id
            case _:
                pass

    @property
    def missing(self) -> tuple[str, ...]:
        """The holders without a proof."""
        return tuple(name for name in HOLDERS if name not in self.proofs)

    @property
    def dataset_ids(self) -> tuple[str, ...]:
        """Dataset versions that still hold erased data, sorted."""
        curate = self.proofs.get("curate")
        return tuple(sorted({*curate.dataset_ids} - {*curate.deleted_dataset_ids})) if curate else ()

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Adapters that were trained on versions with erased data, including later ones, sorted."""
        curate = self.proofs.get("curate")
        if curate is None:
            return ()
        since = (model for model, version in self.trained.items() if version in curate.dataset_ids)
        return tuple(sorted({*curate.model_ids, *since}))

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        return {
            "holders": {name: proof.records for name, proof in self.proofs.items()},
            "missing": list(self.missing),
            "dataset_ids": list(self.dataset_ids),
            "model_ids": list(self.model_ids),
        }


async def wait_for_holders(
    options: Mapping[str, Any], outcome: Outcome, *, timeout_seconds: float
) -> Outcome:
    """Return the outcome of an erasure once all holders have answered, or the time is over.

    Raises:
        TransientError: no Kafka answers.
    """
    if not timeout_seconds:
        return outcome
    try:
        async with asyncio.timeout(timeout_seconds):
            async for event in follow(options, (ERASURE_COMPLETED, TRAIN_COMPLETED), from_beginning=True):
                outcome.apply(event)
                if not outcome.missing and isinstance(event.data, ErasureCompleted):
                    break
    except TimeoutError:
        pass  # the outcome shows the missing holders
    return outcome


def print_outcome(outcome: Outcome) -> None:
    """Print one line per holder, and what remains."""
    print(f"erasure {outcome.erasure_id} of {outcome.project}")
    for name in HOLDERS:
        proof = outcome.proofs.get(name)
        print(f"  {name:14} {'no answer yet' if proof is None else f'took out {proof.records:,}'}")
    if outcome.missing:
        print("whoever is down carries it out when it is back; its proof comes on erasure.completed: "
              f"`tunewheel watch --topic erasure.completed --project {outcome.project}`")  # fmt: skip
    if outcome.dataset_ids:
        print(f"dataset versions that still hold it: {', '.join(outcome.dataset_ids)}")
    if outcome.model_ids:
        print(f"adapters trained on it, which stay as they are: {', '.join(outcome.model_ids)}")
