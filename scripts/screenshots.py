"""Takes the pictures of the README and the docs of two turns of the help desk. Needs a Chromium.

PYTHONPATH=testing python scripts/screenshots.py            the pictures of the docs
PYTHONPATH=testing python scripts/screenshots.py --all DIR  each page in both themes and both widths
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Page
from tunewheel_testing.browser import chromium_here, opened
from tunewheel_testing.console import Console
from tunewheel_testing.crawl import HEADERS, one_of_each, some_pages
from tunewheel_testing.helpdesk import tell

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = {
    "console": "/projects/{project}/turns/{turn_id}",
    "console-labels": "/projects/{project}/labels/{request_id}",
    "console-rows": "/projects/{project}/evaluations/{evaluation_id}/rows?difference=candidate_better",
}
"""The pages that the docs show, by the name of their picture. README shows the first one in both themes."""
COLOURS = 128
THEMES, WIDTHS, TALLEST = ("light", "dark"), (400, 1_400), 4_000


async def picture(page: Page, url: str, height: int | None = None) -> Image.Image:
    """Return a page as a picture with few colours; without ``height`` the whole page."""
    size = page.viewport_size
    assert size is not None
    await page.goto(url, wait_until="load")
    tall = height or min(TALLEST, await page.evaluate("document.documentElement.scrollHeight"))
    await page.set_viewport_size({"width": size["width"], "height": tall})
    shot = await page.screenshot()
    await page.set_viewport_size(size)
    return with_few_colours(Image.open(io.BytesIO(shot)).convert("RGB"))


def with_few_colours(image: Image.Image) -> Image.Image:
    """Return the picture in its own commonest colours, so that grounds and states keep theirs."""
    found: Any = image.getcolors(image.width * image.height)
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in sorted(found, reverse=True)[:COLOURS] for part in colour])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


async def take(console: Console, chromium: str, everything: Path | None, only: str) -> None:
    pages = one_of_each(await some_pages(console.url))
    async with opened(chromium) as browser:
        for theme, width in product(THEMES, WIDTHS if everything else (1_100,)):
            page = await browser.new_page(
                viewport={"width": width, "height": 900}, color_scheme=theme, extra_http_headers=HEADERS
            )
            for name, shape in PICTURES.items() if everything is None else ():
                if theme == "light" or name == "console":
                    path, _, query = shape.partition("?")
                    shown = f"{pages[path].partition('?')[0]}?{query}" if query else pages[path]
                    shot = await picture(page, console.url + shown, 900)
                    shot.save(DOCS / f"{name}{'-dark' if theme == 'dark' else ''}.png", optimize=True)
            for shape, path in pages.items() if everything else ():
                name = re.sub(r"[^a-z]+", "-", shape.replace("/projects/{project}", "")).strip("-")
                if re.search(only, name or "project"):
                    shot = await picture(page, console.url + path)
                    shot.save(everything / f"{name or 'project'}.{width}.{theme}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="DIR", help="each page in both themes and both widths")
    parser.add_argument("--only", default="", metavar="REGEX", help="of these names alone, with --all")
    chosen = parser.parse_args()
    if (chromium := chromium_here()) is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    if chosen.all:
        chosen.all.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        console = Console(Path(folder))
        asyncio.run(tell(console))
        with console.serving():
            asyncio.run(take(console, chromium, chosen.all, chosen.only))


if __name__ == "__main__":
    main()
