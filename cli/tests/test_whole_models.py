from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewheel_cli.whole_models import fetched, whole_models
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_runtime.store import ObjectStore

BASE = BaseModelRef(name="org/Tiny-Base", revision="sha256:" + "0" * 64)


async def ref(store: ObjectStore, name: str, method: TrainMethod = TrainMethod.FULL) -> AdapterRef:
    file = await store.put(f"adapters/{name}/model.safetensors", name.encode())
    return AdapterRef(model_id=name, path=f"adapters/{name}", files=(file,), base=BASE, method=method)


def desired(*routes: tuple[str, AdapterRef], stand_ins: tuple[AdapterRef, ...] = ()) -> ServingDesired:
    def route(role: str, adapter: AdapterRef) -> Route:
        percent = 90 if role == "production" else 10
        return Route(model_id=adapter.model_id, role=RouteRole(role), percent=percent, adapter=adapter)

    told: dict[str, Any] = {"project": "desk", "generation": 1, "base": BASE, "system_prompt": ""}
    found = tuple(route(*one) for one in routes)
    before = tuple(route("production", one) for one in stand_ins)
    return ServingDesired(**told, desired=DesiredRoutes(routes=found), stand_ins=before)


async def test_whole_models_that_routes_name_get_an_engine_each(tmp_path: Path) -> None:
    store = ObjectStore((tmp_path / "store").as_uri())
    one, two, old = [await ref(store, f"desk-{n}") for n in (1, 2, 0)]
    adapter = await ref(store, "desk-3", TrainMethod.LORA)
    found = whole_models(
        [desired(("production", two), ("canary", adapter)), desired(("production", one), ("canary", two),
                                                                     stand_ins=(old,))]
    )  # fmt: skip
    assert found == [one, two]
    place = await fetched(one, store_url=(tmp_path / "store").as_uri(), folder=tmp_path / "models")
    assert place.name == "desk-1", "the gateway knows the engine by it"
    assert (place / "model.safetensors").read_bytes() == b"desk-1"
