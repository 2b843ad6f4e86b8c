"""A full window becomes a record: what every detector found, and what is to be said."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from tunewheel_contracts.events.production import DriftDetected, DriftExample, DriftWindow
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.static_embedding import Vectors

from tunewheel_monitor.drift import Finding, InputReference, farthest, input_drift, rate_drift
from tunewheel_monitor.records import DetectorRecord, StreamName, WindowRecord
from tunewheel_monitor.windows import Item, Stream, Window

Detector = Literal["input", "format", "feedback"]
DETECTORS: dict[StreamName, tuple[Detector, ...]] = {
    "completions": ("input", "format"),
    "feedback": ("feedback",),
}
EXCERPT = 300
Seen = tuple[Detector, Finding, tuple[DriftExample, ...]]


@dataclass(frozen=True)
class Judge:
    """What the detectors need besides the window. Calling it is heavy: keep it off the event loop."""

    embed: Callable[[Sequence[str]], Vectors]
    examples: int

    def __call__(
        self,
        stream: Stream,
        name: StreamName,
        window: Window,
        drift: DriftSpec,
        *,
        reference: InputReference | None,
        measured: tuple[int, int] | None,
        erased: Set[str] = frozenset(),
    ) -> WindowRecord:
        """Return the record of ``window``. Completions that were ``erased`` count and are not shown.

        ``measured`` is the model's (invalid, total) on its holdout; where it is unknown, and for ratings,
        the first window is what later ones are compared with.
        """
        baseline = measured or stream.baseline or (window.bad, len(window.items))
        span = span_of(window)
        seen: list[Seen] = []
        not_measured: tuple[str, ...] = ()
        for detector in DETECTORS[name]:
            if detector not in drift.detectors:
                continue
            if detector == "input":
                if any(item.text is None for item in window.items):
                    not_measured = (detector,)
                elif reference is not None:
                    seen.append(self._input(stream, window, span, drift, reference, erased))
            else:
                seen.append(self._rate(detector, window, drift, baseline, erased))
        record = _record(stream, name, window, span, drift, baseline, seen)
        return record.model_copy(update={"not_measured": not_measured}) if not_measured else record

    def _input(
        self,
        stream: Stream,
        window: Window,
        span: DriftWindow,
        drift: DriftSpec,
        reference: InputReference,
        erased: Set[str],
    ) -> Seen:
        vectors = self.embed([item.text or "" for item in window.items])
        finding = input_drift(
            reference, vectors, p_value=drift.p_value, seed=seed_of(stream.dataset_id, span, window.items)
        )
        novelty = reference.novelty_of(vectors)
        chosen = [(window.items[i], float(novelty[i])) for i in farthest(novelty, self.examples)]
        shown = tuple(_example(item, item.text or "", score, erased) for item, score in chosen)
        return "input", finding, shown

    def _rate(
        self,
        detector: Detector,
        window: Window,
        drift: DriftSpec,
        baseline: tuple[int, int],
        erased: Set[str],
    ) -> Seen:
        name = "invalid_rate_rise" if detector == "format" else "thumbs_down_rate_rise"
        counts = (window.bad, len(window.items))
        finding = rate_drift(name, window=counts, reference=baseline, p_value=drift.p_value)
        bad = [item for item in window.items if item.bad][: self.examples]
        return (
            detector,
            finding,
            tuple(_example(item, item.shown or item.text or "", 1.0, erased) for item in bad),
        )


def span_of(window: Window) -> DriftWindow:
    """Return the window's identity: its ends in arrival order, its length, the time it covers."""
    times = [item.at for item in window.items]
    return DriftWindow(
        first_completion_id=window.items[0].completion_id,
        last_completion_id=window.items[-1].completion_id,
        completions=len(window.items),
        started_at=min(times),
        ended_at=max(times),
    )


def seed_of(dataset_id: str, span: DriftWindow, items: Sequence[Item]) -> int:
    """Return the permutations' seed: the same window against the same reference, the same p-value."""
    named = {
        "dataset_id": dataset_id,
        "window": span.model_dump(mode="json"),
        "completions": [item.completion_id for item in items],
    }
    return int(content_sha256(named)[:8], 16)


def _record(
    stream: Stream,
    name: StreamName,
    window: Window,
    span: DriftWindow,
    drift: DriftSpec,
    baseline: tuple[int, int],
    seen: Sequence[Seen],
) -> WindowRecord:
    silence = stream.silence
    last = window.items[-1]
    findings: list[DetectorRecord] = []
    detections: list[DriftDetected] = []
    for detector, finding, examples in seen:
        spoken = finding.drifted and not silence.binds(detector)
        findings.append(_finding(detector, finding, spoken=spoken))
        silence = silence.after(
            detector, len(window.items), drifted=finding.drifted, cooldown=drift.cooldown_completions
        )
        if spoken:
            detections.append(_detection(stream, detector, finding, span, last.model_id, examples))
    return WindowRecord(
        project=stream.project,
        dataset_id=stream.dataset_id,
        stream=name,
        number=window.number,
        window=span,
        frontier={str(partition): offset for partition, offset in sorted(window.frontier.items())},
        baseline=baseline,
        findings=tuple(findings),
        silence=dict(silence.left),
        detections=tuple(detections),
        cause_id=last.event_id,
        correlation_id=last.correlation_id,
    )


def _finding(detector: Detector, finding: Finding, *, spoken: bool) -> DetectorRecord:
    return DetectorRecord(
        detector=detector,
        statistic_name=finding.statistic_name,
        statistic=finding.statistic,
        p_value=finding.p_value,
        threshold=finding.threshold,
        drifted=finding.drifted,
        spoken=spoken,
    )


def _detection(
    stream: Stream,
    detector: Detector,
    finding: Finding,
    span: DriftWindow,
    model_id: str,
    examples: tuple[DriftExample, ...],
) -> DriftDetected:
    return DriftDetected(
        project=stream.project,
        detector=detector,
        statistic_name=finding.statistic_name,
        statistic=finding.statistic,
        p_value=finding.p_value,
        threshold=finding.threshold,
        dataset_id=stream.dataset_id,
        model_id=model_id,
        window=span,
        examples=examples,
    )


def _example(item: Item, text: str, score: float, erased: Set[str]) -> DriftExample:
    excerpt = "" if item.completion_id in erased else text[:EXCERPT]
    return DriftExample(completion_id=item.completion_id, excerpt=excerpt, score=score)
