"""The part of a scorecard's page about passages."""

from __future__ import annotations

from collections.abc import Iterable

from tunewheel_contracts.formats.retrieval_scores import CellScores, RetrievalScores

from tunewheel_eval.page_parts import as_text, figure, table


def retrieval_part(scores: RetrievalScores | None) -> Iterable[str]:
    """Yield the quality of search, the four cells, and whether the plan's advice was right."""
    if scores is None:
        return
    judged = "with passages" if scores.with_passages else "without passages"
    yield f"<h2>Passages</h2><p>Of the index {as_text(scores.index_id)}. Judged were answers {judged}."
    if scores.reason is not None:
        yield f" The cells were not compared: {as_text(scores.reason)}."
    yield "</p>"
    if (ranking := scores.ranking) is not None:
        yield f"<p>How often the index finds the document, of {ranking.questions} questions of which it is "
        yield f"known; k is {ranking.top_k}.</p>"
        lines = [
            (name, figure(value), f"{ranking.low[name]:.4g} to {ranking.high[name]:.4g}")
            for name, value in ranking.figures.items()
        ]
        yield table(("metric", "figure", "interval"), lines)
    if scores.cells:
        yield from _cells(scores)


def _cells(scores: RetrievalScores) -> Iterable[str]:
    yield f"<p>Base and tuned model, with passages and without, on the same {scores.rows} questions.</p>"
    names = list(dict.fromkeys(name for cell in scores.cells for name in cell.figures))
    lines = [(name, *(figure(cell.figures.get(name)) for cell in scores.cells)) for name in names]
    if (stale := scores.staleness) is not None:
        lines.append(("stale answers", *(figure(cell.stale) for cell in scores.cells)))
        lines.append(("answers by the new version", *(figure(cell.current) for cell in scores.cells)))
    yield table(("metric", *map(_title, scores.cells)), lines)
    if stale is not None:
        yield f"<p>{stale.documents} documents changed since the index {as_text(stale.before)}; they answer "
        yield f"{stale.questions} of these questions, and of {stale.telling} an answer can show by which "
        yield "version it was given. Stale: it holds a number, a name or an identifier that only the old "
        yield "passage holds.</p>"
    if scores.metric is not None:
        best = ", ".join(cell.value for cell in scores.best)
        yield f"<p>No cell is shown to be better than: {best}, by {as_text(scores.metric)}.</p>"
    if scores.advice is not None:
        yield f"<p>The advice {as_text(scores.advice.approach)}, which the spec follows, was "
        yield f"{scores.advice.outcome}: {as_text(scores.advice.reason)}.</p>"
    yield table(
        ("metric", "cell", "against", "difference", "interval", "p", "test", "sample"),
        [
            (one.metric, one.cell.value, one.against.value, f"{one.difference:+.4g}",
             f"{one.low:+.4g} to {one.high:+.4g}", f"{one.p_value:.3g}", one.test,
             f"{one.rows} rows, {one.clusters} independent")
            for one in scores.differences
        ],
    )  # fmt: skip


def _title(cell: CellScores) -> str:
    return cell.cell.value.replace("_", " ") + (" (serves)" if cell.serves else "")
