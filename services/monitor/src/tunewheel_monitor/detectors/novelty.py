"""Detects that people ask more often about things that the dataset does not cover.

Every question gets points by its novelty: few if most of the dataset's own questions lie as far from the
others (leave one out), many if hardly any does (``coverage.py``). The points are compared with the usual
points *in the same region*: more traffic in a region where questions are diverse is no novelty. The usual
points are estimated from the reference's own questions in the region and, increasingly, from production's
healthy windows. The ratio is an e-value, which ``evidence.py`` gathers.

A dataset that holds rewordings of its own questions makes these distances too small. Such a dataset shows by
its pairs of questions (``coverage.py``). Until 500 questions were asked, only a rise beyond what rewordings
explain is evidence. Then, if the 500 lie farther than the dataset says, their distances are the standard.

A sentence encoder measures novelty better, and is too slow for all traffic. So it scores a sample
(``sample.py``), and the detector gathers its evidence apart, from the encoder's own distances, regions and
usual points. The weighted mean of both is the evidence that counts: a mean of e-detectors is one, so they
share one risk. Windows of the encoder's part are as many encoded questions.

Each region's usual points have a standard error. Errors of many regions cancel out. So the margin is the
standard error of the mean over the regions with recent traffic: small if traffic is spread, larger if few
regions have most of it.

The ranks among the reference's distances are conformal p-values (Vovk, Gammerman and Shafer, "Algorithmic
learning in a random world", 2005). The points are a step-shaped calibrator of them (Vovk and Wang, "E-values:
calibration, combination and applications", Annals of Statistics 2021).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors import evidence, picking
from tunewheel_monitor.detectors.documents import CALIBRATION
from tunewheel_monitor.detectors.points import (
    CAUTION,
    ENCODED_BURST,
    ENCODED_DOUBT,
    ENCODED_PAIRS,
    NOVEL,
    ODD_LEVEL,
    close,
    doubt_of,
    opened,
    strength,
    take,
)
from tunewheel_monitor.detectors.protocol import Finding, Opening, State

ENCODED = 0.8
"""The weight of the evidence from encoded questions, where there is an encoder."""
ENOUGH = 0.9
"""The encoder's window ends once it has so large a share of a window's questions: some are too short."""


class Novelty:
    name = "novelty"
    family: Literal["input"] = "input"
    weight = 0.3
    floor = 0.015
    """The least rise of the share of novel questions that raises an alarm."""

    def open(self, opening: Opening) -> State:
        if opening.coverage is None:
            return {}
        judged = opened(opening, opening.coverage, self.weight, doubt=doubt_of(opening.coverage))
        # The release before this one needs ``farthest`` after a rollback.
        return judged | {"asking": picking.fresh(), "farthest": []}

    def encode(self, state: State, encoder: str, opening: Opening) -> None:
        """Let ``state`` judge the questions that ``encoder`` scored too, from now on. ``opening``: with the
        figures of the dataset's questions by that encoder."""
        if "mixture" in state and opening.coverage is not None and encoder_of(state) != encoder:
            doubt = doubt_of(opening.coverage, ENCODED_PAIRS, ENCODED_DOUBT)
            part = opened(opening, opening.coverage, self.weight, doubt=doubt)
            state["encoded"] = part | {"encoder": encoder, "burst": ENCODED_BURST}
            state["burst"] = ENCODED_BURST
            # vectors of different encoders cannot be compared, and may differ in length
            state.get("asking", {}).pop("encoded", None)

    def see(self, state: State, item: InferenceScored) -> bool | None:
        if "mixture" not in state or item.of != "completion" or item.dataset_id != state["dataset_id"]:
            return None
        level = encoded_level = None
        if item.novelty is not None and item.cell is not None:
            level = take(state, item, item.cell, item.novelty, item.vector)
        part, found = state.get("encoded"), item.encoded
        if part and found is not None and found.encoder == part["encoder"]:
            encoded_level = take(part, item, found.cell, found.novelty, found.vector)
        if level is None:
            return None
        asking = state.setdefault("asking", picking.fresh())  # states of earlier releases have none
        asking["seen"] += 1
        if found is not None and encoded_level is not None:
            if found.vector is not None and encoded_level > ODD_LEVEL:
                picking.note(asking, item.completion_id, found.vector, encoded=True)
        elif item.vector is not None and level > ODD_LEVEL:
            picking.note(asking, item.completion_id, item.vector)
        return level > NOVEL

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        if "mixture" not in state or not state["window"][1]:
            return None
        p_value, part, items = p_of(state), state.get("encoded"), state["window"][1]
        close(state, p_value)
        if part and part["window"][1] * part["evidence"]["stake"] >= ENOUGH:
            close(part, p_value)
        told = leading(state)
        novel, seen = (done + now for done, now in zip(told["recent"], told["window"], strict=True))
        if p_value >= evidence.CALM:
            state["asking"] = picking.fresh()
        return Finding(
            detector=self.name,
            statistic_name="share of novel questions",
            statistic=novel / seen,
            usual=told["usual"],
            items=items,
            p_value=p_value,
            threshold=state["evidence"]["threshold"] / (CAUTION if part else 1.0),
            effect=novel / seen - told["usual"],
            effect_unit="rise of the share of novel questions",
            floor=self.floor if floor is None else floor,
            reference=f"{told['texts']} questions of {told.get('of', 'the dataset')}, "
            f"of which {told['usual']:.1%} are novel" + ("" if told is state else " to a sentence encoder"),
            action="collect_labels",
            asking=state.get("asking"),
        )


def encoder_of(state: State) -> str | None:
    """Return the name of the sentence encoder by which ``state`` judges questions too."""
    part: State = state.get("encoded") or {}
    return part.get("encoder")


def lacks_encoder(state: State, items: Iterable[InferenceScored]) -> bool:
    """Return whether an encoder scored ``items`` of which ``state`` does not have the figures."""
    return bool({item.encoded.encoder for item in items if item.encoded} - {encoder_of(state)})


def leading(state: State) -> State:
    """Return the state of the measure that has most of the evidence."""
    part = state.get("encoded")
    leads = part and ENCODED * strength(part) > (1 - ENCODED) * strength(state)
    return part if part and leads and any((*part["window"], *part["recent"])) else state


def p_of(state: State) -> float:
    """Return 1 / the evidence, at most 1. A mean of the evidence of both measures is evidence too, so they
    share one risk."""
    part = state.get("encoded")
    mean = ENCODED * strength(part) + (1 - ENCODED) * strength(state) if part else strength(state)
    return min(1.0, 1.0 / mean) if mean > 0 else 1.0


def caution(state: State) -> str | None:
    """Return what to know about the standard of ``state``, if the dataset does not represent production."""
    if "production" not in (state.get("of"), (state.get("encoded") or {}).get("of")):
        return None
    return (
        f"the questions of {state['dataset_id']} do not represent production: they lie nearer to each other "
        f"than the first {CALIBRATION} prompts lie to them, as rewordings do; novelty is judged by these "
        "prompts, so subjects that were new from the first day are not seen"
    )
