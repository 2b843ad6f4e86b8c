"""Write ``tunewheel_client.sync`` anew, after a change of ``tunewheel_client.aio``.

Installations and tests write it by themselves, so the package is not tracked. ``--check`` changes
nothing, and exits with 1 when a file is stale.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    script = runpy.run_path(str(Path(__file__).resolve().parents[1] / "client/hatch_build.py"))
    if "--check" not in sys.argv:
        script["write"]()
    elif stale := sorted(path.name for path in script["stale"]()):
        sys.exit(f"sync is stale: {', '.join(stale)}; run scripts/client_sync.py")
