"""The ``tunewheel`` command's process."""

from __future__ import annotations

import os
import sys

from tunewheel_cli.table import root_help


def app() -> None:
    """Run the command. The root's help and the version need no library, so none is imported for them."""
    words = sys.argv[1:]
    if words in ([], ["--help"]) and "_TUNEWHEEL_COMPLETE" not in os.environ:
        print(root_help())
        return
    from tunewheel_cli.frame import app as tunewheel

    tunewheel()


if __name__ == "__main__":
    app()
