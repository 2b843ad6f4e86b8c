"""What the package exports, what its import costs, and how its synchronous half is made."""

from __future__ import annotations

import ast
import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import tunewheel_client
from tunewheel_client import AsyncClient, Client

ROOT = Path(__file__).resolve().parents[2]


def test_every_name_of_the_package_is_there_and_has_a_docstring():
    assert len(tunewheel_client.__all__) > 15
    for name in tunewheel_client.__all__:
        found = getattr(tunewheel_client, name)
        assert found.__doc__, name
        assert found.__name__ == name.removesuffix("_async")
    with pytest.raises(AttributeError, match="no_such_name"):
        tunewheel_client.no_such_name  # noqa: B018


def test_what_types_see_is_what_is_exported():
    tree = ast.parse(Path(tunewheel_client.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    names = [alias.asname or alias.name for node in guarded.body for alias in node.names]  # type: ignore[attr-defined]
    assert sorted(names) == sorted(tunewheel_client.__all__)


def test_importing_the_package_loads_neither_httpx_nor_pydantic():
    code = (
        "import sys, tunewheel_client; print([m for m in ('httpx', 'pydantic', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_synchronous_half_is_the_asynchronous_one_without_waiting():
    generated = runpy.run_path(str(ROOT / "client/hatch_build.py"))["synchronous"]
    assert generated("x: Callable[..., Awaitable[Page[T]]] = await aio.f(AsyncClient)") == (
        "x: Callable[..., Page[T]] = sync.f(Client)"
    )
    folder = ROOT / "client/src/tunewheel_client"
    names = {path.name for path in (folder / "aio").glob("*.py")}
    assert names == {path.name for path in (folder / "sync").glob("*.py")}
    assert not [name for name in names if "await" in (folder / "sync" / name).read_text("utf-8").split()]


def resources() -> list[str]:
    return sorted({name for name in dir(AsyncClient("http://a", "k")) if not name.startswith("_")})


def test_both_clients_have_the_same_documented_methods():
    with Client("http://a", "k") as sync:
        other = AsyncClient("http://a", "k")
        page = (ROOT / "client/README.md").read_text("utf-8")
        for name in resources():
            assert f"`{name.replace('aclose', 'ask')}`" in page or name in ("project", "url")
            ours, theirs = getattr(sync, name.replace("aclose", "close")), getattr(other, name)
            if hasattr(ours, "_transport"):
                methods = [method for method in dir(theirs) if not method.startswith("_")]
                assert methods == [method for method in dir(ours) if not method.startswith("_")]
                assert all(inspect.getdoc(getattr(theirs, method)) for method in methods)
                assert inspect.getdoc(theirs)
                rows = [line for line in page.splitlines() if line.startswith("|")]
                (line,) = [line for line in rows if f"`{name}`" in line.split("|")[1]]
                assert not [method for method in methods if f"`{method}`" not in line]


def test_what_is_stale_is_named_before_it_is_written(tmp_path: Path):
    hatch = runpy.run_path(str(ROOT / "client/hatch_build.py"))
    hatch["stale"].__globals__["PACKAGE"] = tmp_path
    for folder in ("aio", "sync"):
        (tmp_path / folder).mkdir()
    (tmp_path / "aio/one.py").write_text("async def one(): ...\n")
    (tmp_path / "sync/gone.py").write_text("")
    stale = {path.name: text for path, text in hatch["stale"]().items()}
    assert stale.keys() == {"one.py", "gone.py"}
    assert stale["gone.py"] is None
    hatch["write"]()
    assert [path.name for path in (tmp_path / "sync").iterdir()] == ["one.py"]
    assert hatch["stale"]() == {}
