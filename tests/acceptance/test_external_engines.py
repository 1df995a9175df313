"""Workflows that other engines serve, against a real local HTTP server that behaves as n8n does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import AccessDenied, Conflict, RunFailed, UnknownWorkflow
from tests.acceptance.conftest import HomeFolder

SECRET = "s3cret-of-n8n"


class Stub:
    """n8n's webhooks. `answers` are given in turn: (status, body), or None for a dropped connection."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any] | None] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                stub.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                answer = stub.answers.pop(0) if stub.answers else (200, {"by": "n8n"})
                if answer is None:
                    self.connection.close()
                    return
                status, told = answer
                raw = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def keys(self) -> list[str]:
        return [headers["idempotency-key"] for _, headers, _ in self.seen]


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    thread = Thread(target=stub.server.serve_forever, args=(0.01,))
    thread.start()
    yield stub
    stub.server.shutdown()
    thread.join()
    stub.server.server_close()


def settings(stub: Stub, more: str = "") -> str:
    return f"""
[secrets]
file = "secrets.toml"
[workflows]
public_url = "http://127.0.0.1:1"
[workflows.engines.n8n]
base_url = "{stub.url}"
headers = {{ "X-N8N-Secret" = {{ secret = "n8n" }} }}
{more}
"""


def furnish(home: HomeFolder, stub: Stub, more: str = "") -> None:
    home.settings(settings(stub, more))
    home.write("secrets.toml", f'n8n = "{SECRET}"').chmod(0o600)


HAND_OVER = "slug: hand_over\nsteps:\n  - {id: call, workflow: enrich, with: {text: '{{ inputs.text }}'}}\n"
ENDS = "outputs: '{{ steps.call.output }}'\n"


@pytest.mark.anyio
@pytest.mark.req("H9")
async def test_without_a_local_definition_the_same_chain_goes_to_n8n_and_with_neither_fails(
    home: HomeFolder, stub: Stub
) -> None:
    chains = {"enable_external_workflow": True, "workflow_slug": "task_follow_up"}
    code = "def run(params): return {'task': params['task']}"
    home.plugin("planner", code, intent="plan_task", description="Plans.", **chains)
    local = home.write("workflows/task_follow_up.yaml", "slug: task_follow_up\nsteps: [{id: a, emit: followed_up}]\n")
    furnish(home, stub)

    async def chained() -> list[tuple[str, Any]]:
        async with EventCore(home.root) as core:
            await core.plugins.enable("planner")
            await core.plugins.run("plan_task", {"task": "sweep"})
            await core.drain(60)
            return [(run.status, json.loads(run.raw_output or b"null")) for run in await core.workflows.runs()]

    assert await chained() == [("completed", None)]
    assert stub.seen == []
    local.unlink()
    assert (await chained())[0] == ("completed", {"by": "n8n"})
    [(path, headers, body)] = stub.seen
    assert (path, headers["x-n8n-secret"], body) == ("/webhook/task_follow_up", SECRET, {"task": "sweep"})

    home.settings("")
    checked = home.run("plugins", "validate", "plugins/planner")
    assert checked.returncode == 0
    assert "warning: workflow_slug: there is no workflow 'task_follow_up'; " in checked.stdout
    assert f"searched: {home.root}/workflows, " in checked.stdout
    assert len(await chained()) == 2  # as before: nothing was started
    async with EventCore(home.root) as core:
        core.workflows.define("slug: w\nsteps: [{id: a, emit: begun}, {id: b, workflow: task_follow_up}]")
        for slug in ("task_follow_up", "w"):
            with pytest.raises(UnknownWorkflow, match=r"'task_follow_up'.*searched: the home's workflows/"):
                await core.workflows.start(slug)
        assert [event async for event in core.history.query(type="begun")] == []
        [refused] = [event async for event in core.history.query(type="trigger_failed")]
        assert (refused.data["slug"], refused.data["code"]) == ("task_follow_up", "unknown_workflow")
    assert len(stub.seen) == 1


@pytest.mark.anyio
@pytest.mark.req("H10")
async def test_n8n_sees_one_key_on_a_safe_retry_and_the_run_parks_until_it_is_called_back_once(
    home: HomeFolder, stub: Stub
) -> None:
    furnish(home, stub, 'wait = "response"')
    home.write("workflows/hand_over.yaml", HAND_OVER + ENDS)
    async with EventCore(home.root) as core:
        stub.answers = [None, (200, {"by": "n8n"})]
        run = await core.workflows.start("hand_over", {"text": "hi"})
        assert await run.result(60) == {"by": "n8n"}
        assert len(stub.seen) == 2
        assert len({*stub.keys}) == 1
        assert all(headers["traceparent"].startswith("00-") for _, headers, _ in stub.seen)

        stub.answers = [(400, "no such field")]
        with pytest.raises(RunFailed, match="refused it: 400") as refused:
            await (await core.workflows.start("hand_over", {"text": "hi"})).result(60)
        assert len(stub.seen) == 3
        assert SECRET not in str(refused.value.details)

    furnish(home, stub, 'wait = "callback"')
    async with EventCore(home.root) as core:
        run = await core.workflows.start("hand_over", {"text": "hi"})
        await core.drain(60)
        assert await run.status() == "waiting"
    async with EventCore(home.root) as core:  # parked: a row, which outlives the process
        url = stub.seen[-1][2]["resume_url"]
        assert url.startswith("http://127.0.0.1:1/api/resume/")
        token = url.rpartition("/")[2]
        with pytest.raises(AccessDenied):
            await core.workflows.answer(token[:-4] + "AAAA", {})
        await core.workflows.answer(token, {"answer": 42})
        assert await (await core.workflows.run(run.id)).result(60) == {"answer": 42}
        with pytest.raises(Conflict):
            await core.workflows.answer(token, {"answer": 43})
        assert await (await core.workflows.run(run.id)).result(60) == {"answer": 42}
    stored = (home.root / ".eventcore" / "eventcore.db").read_bytes()
    assert SECRET.encode() not in stored
