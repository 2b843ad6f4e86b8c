"""The ``tunewheel`` command's process."""

from __future__ import annotations

import os
import sys

from tunewheel_cli.table import explained


def app() -> None:
    """Run the command. Help on which command there is needs no library, so none is imported for it."""
    told = None if "_TUNEWHEEL_COMPLETE" in os.environ else explained(sys.argv[1:])
    if told is not None:
        print(told)
        return
    from tunewheel_cli.frame import app as tunewheel

    tunewheel()


if __name__ == "__main__":
    app()
