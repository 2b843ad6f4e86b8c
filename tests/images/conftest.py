"""Images that the tests of one run build once, and remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .containers import Image, buildah, prune, skip_without_base


@pytest.fixture(scope="session")
def built() -> Iterator[Callable[[str], Image]]:
    """Call it with an image's name."""
    skip_without_base()
    images: dict[str, Image] = {}

    def build(name: str) -> Image:
        if name not in images:
            image = Image(name)
            image.build()
            images[name] = image
        return images[name]

    yield build
    for image in images.values():
        buildah("rmi", "--force", image.tag)
    prune()
