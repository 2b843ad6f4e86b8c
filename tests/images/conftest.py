"""Images that the tests of one run build once, and remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .containers import IS_MISSING, Image, buildah, prune


@pytest.fixture(scope="session")
def built() -> Iterator[Callable[[str], Image]]:
    """Call it with a service's name, or ``cli``, for its image."""
    if IS_MISSING:
        pytest.skip("apt-get install buildah")
    images: dict[str, Image] = {}

    def build(service: str) -> Image:
        if service not in images:
            image = Image(service)
            image.build()
            images[service] = image
        return images[service]

    yield build
    for image in images.values():
        buildah("rmi", "--force", image.tag)
    prune()
