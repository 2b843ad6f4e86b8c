"""Curves over each other, as one SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 360, 40
COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#6a4c93", "#444444", "#00a6a6")


def write_curves(path: Path, losses: Mapping[str, Sequence[float]], *, of: str = "loss by step") -> None:
    """Draw ``losses`` by step, each contender in a colour; those of one method beside TRL's lie on top.
    ``of`` says what is drawn."""
    steps = max(len(curve) for curve in losses.values())
    top = max(max(curve) for curve in losses.values())

    def point(step: int, loss: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / max(steps - 1, 1)
        return f"{x:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * loss / top:.1f}"

    drawn = [
        f'<text x="{MARGIN}" y="{MARGIN - 20}">{of}, 0 to {top:.2f}, steps 1 to {steps}</text>',
        f'<path d="M{MARGIN},{MARGIN} V{HEIGHT - MARGIN} H{WIDTH - MARGIN}" fill="none" stroke="#999"/>',
    ]
    for number, (name, curve) in enumerate(losses.items()):
        colour, dashed = COLOURS[number % len(COLOURS)], ' stroke-dasharray="6 4"' * name.startswith("trl")
        points = " ".join(point(step, loss) for step, loss in enumerate(curve))
        drawn += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>',
            f'<text x="{WIDTH - 150}" y="{MARGIN + 16 * number}" fill="{colour}">{name}</text>',
        ]
    body = "\n".join(drawn)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )
