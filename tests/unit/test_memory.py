"""Memory: found by words, by likeness with a service, apart by tenant, stored by rule, forgotten."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import CallContext, caller
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.settings import Settings
from eventcore.operations import perform
from tests.unit.test_roles_everywhere import plant

pytestmark = pytest.mark.anyio

#: What the stub service knows of meaning: texts about the same thing point the same way.
MEANING = {"weather": 0, "rain": 0, "sunny": 0, "train": 1, "rail": 1, "lunch": 2, "soup": 2}


class Service:
    """A local embeddings service, as OpenAI's looks on the wire."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer: Any = None
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append(body)
                outer.keys.append(self.headers.get("authorization"))
                said = outer.answer if outer.answer is not None else outer.vectors(body["input"])
                raw = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(outer.status if self.path == "/v1/embeddings" else 404)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def vectors(self, texts: list[str]) -> dict[str, Any]:
        found = []
        for index, text in enumerate(texts):
            vector = [0.01, 0.01, 0.01]
            for word, place in MEANING.items():
                vector[place] += text.count(word)
            found.append({"index": index, "embedding": vector})
        return {"data": found[::-1], "model": "stub"}


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


@asynccontextmanager
async def engine(**memory: Any) -> AsyncIterator[EventCore]:
    settings = Settings.model_validate({"memory": memory})
    with anyio.fail_after(60):
        async with EventCore(settings=settings) as core:
            core.plugins.intent("schedule_task", lambda params: {"task": params["what"]})
            core.plugins.intent("fails", lambda params: {"success": False})
            yield core


async def asked(core: EventCore, name: str, **params: Any) -> Any:
    async def send(item: Any) -> None: ...

    return await perform(core.engine, name, params, send)


async def test_results_are_stored_by_rule() -> None:
    async with engine() as core:
        user = {"user_id": "ada", "roles": ["user"]}
        for what in ("wash up", "dry up"):
            await core.plugins.run_plugin("schedule_task", {"what": what}, user)
        await core.plugins.run_plugin("fails", {}, user)
        await core.plugins.run("schedule_task", {"what": "not by run_plugin"})
        found = await asked(core, "memory.search", text="schedule")
        assert [row["result"] for row in found] == [{"task": "dry up"}, {"task": "wash up"}]
        assert found[0]["query"] == 'schedule_task {"what":"dry up"}'
        assert len(await asked(core, "memory.search", text="SCHEDULE wash")) == 1
        await asked(core, "intents.run", intent="schedule_task", params={"what": "by the command line"})
        assert len(await asked(core, "memory.search", text="schedule")) == 3
    async with engine(store_results=False) as core:
        await core.plugins.run_plugin("schedule_task", {"what": "x"}, {})
        assert await asked(core, "memory.search", text="schedule") == []


async def test_a_large_result_is_not_remembered_and_does_no_harm() -> None:
    async with engine() as core:
        core.plugins.intent("large", lambda params: "x" * 300_000)
        assert len((await core.plugins.run_plugin("large", {}, {}))[0]) == 300_000
        assert (await asked(core, "memory.list"))["memories"] == []


async def remembered(core: EventCore, *texts: str, tenant: str = "default") -> None:
    memories = core.engine.plugins.memories
    from eventcore.kernel.records import Batch

    for text in texts:
        await core.engine.store.commit(Batch(memory=[memories.row(tenant, "journal", text, {"note": text})]))


async def measured(core: EventCore) -> None:
    while await core.engine.store.unmeasured("stub-model"):
        await anyio.sleep(0.01)


async def test_nearest_comes_first(service: Service) -> None:
    async with engine(embeddings=service.url, model="stub-model") as core:
        await remembered(core, "the train was late", "rain again, bad weather", "soup for lunch")
        await measured(core)
        found = await asked(core, "memory.search", text="is it sunny", limit=2)
        assert found[0]["query"] == "rain again, bad weather"
        assert found[0]["likeness"] > 0.9 > found[1]["likeness"]
        assert service.asked[0]["model"] == "stub-model"
        await remembered(core, "rail strike")
        found = await asked(core, "memory.search", text="rail")
        assert {row["query"] for row in found[:2]} == {"rail strike", "the train was late"}
        assert [row["query"] for row in await asked(core, "memory.search", text="rail", plugin="other")] == []
        assert 'embedding_requests_total{outcome="ok"}' in core.engine.metrics.text()


async def test_tenants_are_apart(service: Service) -> None:
    async with engine(embeddings=service.url, model="stub-model") as core:
        await remembered(core, "rain in Rome", tenant="acme")
        await remembered(core, "rain in Paris")
        await measured(core)
        memories = core.engine.plugins.memories
        assert [row.query for row, _ in await memories.find("acme", "weather", 5)] == ["rain in Rome"]
        assert [row.query for row, _ in await memories.find("nobody", "weather", 5)] == []
        assert await memories.purge(CallContext(tenant="acme")) == 1
        assert [row.query for row, _ in await memories.find("default", "rain", 5)] == ["rain in Paris"]


BAD: list[Any] = [
    b"not json",
    [],
    {"data": 5},
    {"data": [{"index": 9, "embedding": [1]}]},
    {"data": [{"embedding": ["x"]}]},
    {"data": []},
]


@pytest.mark.parametrize("answer", BAD, ids=repr)
async def test_a_service_that_answers_nonsense(service: Service, answer: Any) -> None:
    service.answer = answer
    async with engine(embeddings=service.url, model="stub-model") as core:
        await remembered(core, "rain in Paris")
        found = await asked(core, "memory.search", text="rain")
        assert [(row["query"], row["likeness"]) for row in found] == [("rain in Paris", None)]


async def test_a_service_that_is_down_or_refuses(service: Service) -> None:
    service.status = 500
    async with engine(embeddings=service.url, model="stub-model") as core:
        await remembered(core, "rain in Paris")
        assert len(await asked(core, "memory.search", text="rain")) == 1
        assert await asked(core, "memory.search", text="snow") == []
    async with engine(embeddings="http://127.0.0.1:9/v1", model="stub-model", timeout=1.0) as core:
        await remembered(core, "rain in Paris")
        assert len(await asked(core, "memory.search", text="rain")) == 1
        assert 'embedding_requests_total{outcome="failed"}' in core.engine.metrics.text()


async def test_the_key_is_a_secret(service: Service) -> None:
    from eventcore.home.secrets import EnvSecrets

    settings = Settings.model_validate(
        {"memory": {"embeddings": service.url, "model": "stub-model", "api_key": "EMBED"}}
    )
    with anyio.fail_after(60):
        with pytest.raises(InvalidInput, match=r"memory\.api_key names the secret 'EMBED', which is not set"):
            async with EventCore(settings=settings, secrets=EnvSecrets(environ={})):
                pass
        secrets = EnvSecrets(environ={"EVENTCORE_SECRET_EMBED": "k-123"})
        async with EventCore(settings=settings, secrets=secrets) as core:
            await asked(core, "memory.search", text="rain")
    assert service.keys == ["Bearer k-123"]


async def test_the_oldest_are_forgotten_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventcore.plugins.memory.memories._ON_ITS_WAY", 0.3)
    async with engine(most=3) as core:
        await remembered(core, *(f"note {n}" for n in range(6)))
        while len(rows := (await asked(core, "memory.list"))["memories"]) > 3:
            await anyio.sleep(0.01)
        assert [row["query"] for row in rows] == ["note 5", "note 4", "note 3"]


async def test_purge_says_what_it_did() -> None:
    async with engine() as core:
        await remembered(core, "rain", "sun", "rain and sun")
        with pytest.raises(InvalidInput, match="say what to forget"):
            await asked(core, "memory.purge")
        assert await asked(core, "memory.purge", older_than="1h") == {"forgotten": 0}
        assert await asked(core, "memory.purge", text="rain") == {"forgotten": 2}
        [event] = [event async for event in core.history.query(type="memory_purged", where={"data.forgotten": 2})]
        assert event.data["text"] == "rain"
        assert [row.action for row in await core.engine.store.audit()] == ["memory_purged"] * 2
        assert await asked(core, "memory.purge", everything=True) == {"forgotten": 1}


@pytest.mark.parametrize("limit", [0, 1001])
async def test_limits_of_a_search(core: EventCore, limit: int) -> None:
    with pytest.raises(InvalidInput, match="limit is 1 to 1,000"):
        await asked(core, "memory.search", text="x", limit=limit)


async def test_a_plugin_reads_what_it_wrote_in_the_same_call(core: EventCore, tmp_path: Path) -> None:
    code = """
        from eventcore.sdk import ctx
        async def run(params):
            await ctx.memory.write("rain today", {"n": 1})
            return {"found": await ctx.memory.read("RAIN"), "other": await ctx.memory.read("snow")}
    """
    plant(core, tmp_path / "diary", code, permissions=["memory_read", "memory_write"])
    await core.plugins.enable("diary", grants=["memory_read", "memory_write"])
    done = await core.plugins.run("diary", context=caller("user:ada", tenant="acme"))
    assert ([one["result"] for one in done["found"]], done["other"]) == ([{"n": 1}], [])
    assert await core.engine.store.memories("default", "") == []
    assert len(await core.engine.store.memories("acme", "rain")) == 1
