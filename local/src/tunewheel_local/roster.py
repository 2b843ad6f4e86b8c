"""The processes of a wheel, their ports, and their environment variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tunewheel_contracts.cache import cache_dir
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS

from tunewheel_local.http import own_certificate
from tunewheel_local.kafka.ports import free_port, is_free
from tunewheel_local.places import Var
from tunewheel_local.wheel_secrets import WheelSecrets

BROKER = "broker"

# Without these, glibc returns every freed tensor to the system and faults it in again, which takes 10-25 % of
# a training step. The mmap threshold is glibc's maximum.
MALLOC = {
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}


class UnknownService(TunewheelError):
    """``--services`` names a service that is not in the roster."""


class ServicePortTaken(TunewheelError):
    """A service's port is in use."""


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the wheel."""

    name: str
    port: int
    """The port of its API, or of health if it has no API."""
    module: str
    runs_torch: bool = False
    has_api: bool = True

    @property
    def service(self) -> str:
        """The name of its service."""
        return self.module.partition(".")[0].removeprefix("tunewheel_").replace("_", "-")

    @property
    def health(self) -> str:
        """The name of its health port; the member's own name if that is its only port."""
        return f"{self.name}-health" if self.has_api else self.name

    @property
    def ports(self) -> dict[str, int]:
        """Its default ports by name."""
        return {self.name: self.port} | ({self.health: self.port + 1_000} if self.has_api else {})


CURATE = Member("curate", 8102, "tunewheel_curate.main", has_api=False)
CONSOLE = Member("console", 8080, "tunewheel_console.main")
ENGINE = Member("engine", 8110, "tunewheel_engine.main", runs_torch=True)
GATEWAY = Member("gateway", 8100, "tunewheel_serve_gateway.main")
MONITOR = Member("monitor", 8106, "tunewheel_monitor.main", has_api=False)
INDEX = Member("index", 8107, "tunewheel_index.main", has_api=False)

# In the order of their start; they stop in the reverse order. The engine is first because it takes longest.
ROSTER = (
    ENGINE,
    Member("ingest", 8101, "tunewheel_ingest.main"),
    CURATE,
    Member("train", 8103, "tunewheel_train.main", runs_torch=True, has_api=False),
    Member("eval", 8104, "tunewheel_eval.main", runs_torch=True, has_api=False),
    Member("registry", 8105, "tunewheel_registry.main"),
    GATEWAY,
    MONITOR,
    INDEX,
    CONSOLE,
)


def choose(names: Iterable[str] | None, *, option: str = "--services") -> tuple[Member, ...]:
    """Return the members called ``names`` in roster order; all of them for None.

    Raises:
        UnknownService: a name is not in the roster.
    """
    if names is None:
        return ROSTER
    wanted = set(names)
    unknown = wanted - {member.name for member in ROSTER}
    if unknown:
        more = () if option == "--services" else (BROKER,)
        choices = ", ".join((*more, *(member.name for member in ROSTER)))
        raise UnknownService(f"{option}: no service is called {sorted(unknown)[0]!r}; choose from {choices}")
    return tuple(member for member in ROSTER if member.name in wanted)


def assign_ports(
    members: Iterable[Member], *, overrides: Mapping[str, int] | None = None, auto: bool = False
) -> dict[str, int]:
    """Return the ports of all ``members`` by name: the default ones, or with ``auto`` a free port for a taken
    one.

    Raises:
        ServicePortTaken: a port is in use, and ``auto`` is not set.
    """
    from tunewheel_local.kafka.ports import holder

    ports: dict[str, int] = {}
    for name, usual in ((name, port) for member in members for name, port in member.ports.items()):
        port = (overrides or {}).get(name, usual)
        if not is_free(port):
            if not auto:
                by = holder(port)
                raise ServicePortTaken(
                    f"port {port} of {name}: in use{f' by {by}' if by else ''}; stop that process, "
                    f"choose another with --port {name}=N, or let me choose with --auto-ports"
                )
            port = free_port()
        ports[name] = port
    return ports


def command(member: Member) -> list[str]:
    return [sys.executable, "-m", member.module]


def environment(
    member: Member,
    *,
    ports: Mapping[str, int],
    var: Var,
    shared: Mapping[str, str],
    engine_url: str,
    wheel_secrets: WheelSecrets,
) -> dict[str, str]:
    """Return the whole environment of one service: this process's, the shared variables, and its own."""
    own = {
        "TUNEWHEEL_STORE_URL": var.store_url,
        "TUNEWHEEL_CACHE_DIR": str(cache_dir()),
        "TUNEWHEEL_WORK_DIR": str(var.work),
        "TUNEWHEEL_HTTP_PORT": str(ports[member.name]),
        "TUNEWHEEL_HEALTH_PORT": str(ports[member.health]),
        "TUNEWHEEL_ENGINE_URL": engine_url,
        "PYTHONUNBUFFERED": "1",
    }
    inherited = dict(os.environ)
    if "TUNEWHEEL_HTTP_CAFILE" in inherited:
        own["TUNEWHEEL_ENGINE_CAFILE"] = inherited["TUNEWHEEL_HTTP_CAFILE"]
    if "TUNEWHEEL_STORE_URL" in inherited:
        del own["TUNEWHEEL_STORE_URL"]
    elif "TUNEWHEEL_MIRROR_BASES" not in inherited:
        own["TUNEWHEEL_MIRROR_BASES"] = "false"  # the services of one machine share the hub's cache
    if var.precision.is_file():  # judged and served alike, or the gateway refuses the engine
        precision = var.precision.read_text("utf-8")
        both = ("TUNEWHEEL_DTYPE", "TUNEWHEEL_EVAL_DTYPE")
        own |= {name: precision for name in both if name not in inherited}
    if member.name == "ingest" and "TUNEWHEEL_SOURCE_TOPICS" not in inherited:
        own["TUNEWHEEL_SOURCE_TOPICS"] = "*"  # who starts this wheel also declares its projects
    if member is CONSOLE:
        doors = {f"TUNEWHEEL_PUBLIC_{name.upper()}_URL": name for name in ("gateway", "ingest", "console")}
        doors |= {"TUNEWHEEL_REGISTRY_URL": "registry", "TUNEWHEEL_GATEWAY_URL": "gateway"}
        own |= {
            key: url(ports[name]) for key, name in doors.items() if name in ports and key not in inherited
        }
        if "TUNEWHEEL_SPEC_HOSTS" not in inherited:  # the console then checks by curate's default
            own["TUNEWHEEL_SPEC_HOSTS"] = DEFAULT_HOSTS
    own |= _identity(member, wheel_secrets, inherited | dict(shared), has_engine=ENGINE.name in ports)
    return inherited | own | dict(shared) | (MALLOC if member.runs_torch else {})


def _identity(
    member: Member, wheel_secrets: WheelSecrets, said: Mapping[str, str], *, has_engine: bool
) -> dict[str, str]:
    """Return the secrets that ``member`` needs, except those that the user has set (``said``).

    The engine's only caller is the gateway, which sends the wheel's key. So the engine always uses the
    wheel's own file of keys: the user's file, which other services may use, lacks that key.
    """
    own = {
        "TUNEWHEEL_API_KEYS_FILE": str(wheel_secrets.keys_file),
        "TUNEWHEEL_SIGNING_KEYS_FILE": str(wheel_secrets.signing_keys_file),
    }
    if (signing := wheel_secrets.signing_keys.get(member.service)) is not None:
        own["TUNEWHEEL_SIGNING_KEY"] = signing.get_secret_value()
    if member is GATEWAY and has_engine:
        own["TUNEWHEEL_ENGINE_API_KEY"] = wheel_secrets.api_key.get_secret_value()
    if member is CONSOLE:
        own["TUNEWHEEL_SESSION_SECRET"] = wheel_secrets.session_secret.get_secret_value()
    if member in (CURATE, INDEX) and wheel_secrets.pseudonym_secret is not None:
        own["TUNEWHEEL_PSEUDONYM_SECRET"] = wheel_secrets.pseudonym_secret.get_secret_value()
    by_wheel = member is ENGINE and not said.get("TUNEWHEEL_ENGINE_API_KEY")
    return {name: value for name, value in own.items() if by_wheel or not said.get(name)}


def url(port: int) -> str:
    """Return the URL of a port of this machine's wheel. Under TLS it has the host name of the
    certificates."""
    return f"http://127.0.0.1:{port}" if own_certificate(os.environ) is None else f"https://localhost:{port}"
