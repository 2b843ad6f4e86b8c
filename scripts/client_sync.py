"""Write ``tunewheel_client.sync`` anew, after a change of ``tunewheel_client.aio``.

Installations and tests write it by themselves, so the package is not tracked.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "client/hatch_build.py"), run_name="__main__")
