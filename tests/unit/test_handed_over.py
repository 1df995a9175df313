"""Steps whose work is done elsewhere: answers that come early, late, twice or never, and secrets on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.app.other_engines import make_tokens
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import Conflict, InvalidDefinition, InvalidInput, PluginFailed, RunFailed
from eventcore.kernel.settings import Settings, WorkflowSettings
from eventcore.workflows.external.port import Engines, ExternalStart, Waiting
from tests.unit.hand_clock import LIMIT, Ahead, pass_limit

pytestmark = pytest.mark.anyio

SETTINGS = Settings(workflows=WorkflowSettings(public_url="http://here"))
TOKEN = "t0ken"


class Elsewhere:
    """An engine in this process. `during` is what it does while it is being called."""

    name, place, wait = "elsewhere", "http://elsewhere/", "callback"

    def __init__(self) -> None:
        self.wait: Waiting = "callback"
        self.seen: list[ExternalStart] = []
        self.during: Callable[[ExternalStart], Any] | None = None

    def serves(self, slug: str) -> bool:
        return slug == "far"

    async def start(self, request: ExternalStart) -> Any:
        self.seen.append(request)
        return await self.during(request) if self.during is not None else {"ok": True}

    def token(self, number: int = -1) -> str:
        return self.seen[number].resume_url.rpartition("/")[2]


class Named:
    def get(self, name: str) -> str | None:
        return TOKEN if name == "key" else None


@pytest.fixture
def far() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
async def core(anyio_backend: Any, far: Elsewhere) -> AsyncIterator[EventCore]:
    with anyio.fail_after(60):
        async with EventCore(settings=SETTINGS, secrets=Named(), clock=Ahead()) as core:
            tokens = make_tokens(SETTINGS.workflows, None, SystemClock())
            engines = Engines([far], SystemClock(), tokens)
            core.workflows.registry.elsewhere = engines
            core.engine.runner._calls._others["workflow"].__self__._external = engines
            core.workflows.answers._tokens = tokens  # type: ignore[union-attr]
            yield core


def define(core: EventCore, step: dict[str, Any], slug: str = "w", **more: Any) -> None:
    core.workflows.define({"slug": slug, "steps": [{"id": "a", **step}], "outputs": "{{ steps.a.output }}", **more})


async def parked(core: EventCore) -> None:
    await core.drain(5)
    [run] = await core.workflows.runs(slug="w")
    assert run.status == "waiting"


async def test_an_answer_that_overtakes_the_response_counts(core: EventCore, far: Elsewhere) -> None:
    async def answer_at_once(request: ExternalStart) -> Any:
        await core.workflows.answer(request.resume_url.rpartition("/")[2], {"fast": True})
        await anyio.sleep_forever()

    far.during = answer_at_once
    define(core, {"workflow": "far"})
    assert await (await core.workflows.start("w")).result(5) == {"fast": True}
    assert len(far.seen) == 1


async def test_an_answer_that_reports_failure_fails_the_step_and_is_tried_again(
    core: EventCore, far: Elsewhere
) -> None:
    define(core, {"workflow": "far", "retry": {"attempts": 2, "initial": 0.001}})
    run = await core.workflows.start("w")
    await parked(core)
    await core.workflows.answer(far.token(), {"success": False, "error": "Busy", "message": "later"})
    while len(far.seen) < 2:
        await anyio.sleep(0.005)
    assert far.seen[0].key == far.seen[1].key
    await parked(core)
    with pytest.raises(Conflict, match="has been answered"):
        await core.workflows.answer(far.token(0), 1)
    await core.workflows.answer(far.token(1), {"done": 1})
    assert await run.result(5) == {"done": 1}


async def test_whoever_knows_the_key_may_answer_under_the_first_address(core: EventCore, far: Elsewhere) -> None:
    """A crash after the call: it is made again under the same key, and the other engine calls back the first time's."""
    first = True

    async def drop(request: ExternalStart) -> Any:
        nonlocal first
        if first:
            first = False
            raise PluginFailed("cut off")

    far.during = drop
    define(core, {"workflow": "far", "retry": {"attempts": 2, "initial": 0.001}})
    run = await core.workflows.start("w")
    while len(far.seen) < 2:
        await anyio.sleep(0.005)
    await parked(core)
    await core.workflows.answer(far.token(0), "late")
    assert await run.result(5) == "late"


async def test_an_answer_after_a_retry_by_hand_is_too_late(core: EventCore, far: Elsewhere) -> None:
    define(core, {"workflow": "far", "timeout": LIMIT})
    run = await core.workflows.start("w")
    await parked(core)
    pass_limit(core)
    with pytest.raises(RunFailed, match="no answer came in time for a"):
        await run.result(5)
    with pytest.raises(Conflict, match="does not wait for an answer any more"):
        await core.workflows.answer(far.token(0), "late")
    await core.workflows.retry(run.id)
    assert far.seen[0].key != far.seen[-1].key


async def test_a_child_that_does_not_end_in_time_is_cancelled(core: EventCore) -> None:
    core.workflows.define({"slug": "child", "steps": [{"id": "z", "sleep": "1h"}]})
    define(core, {"workflow": "child", "timeout": LIMIT})
    run = await core.workflows.start("w")
    await parked(core)
    pass_limit(core)
    with pytest.raises(RunFailed, match="the child run did not end in time for a"):
        await run.result(5)
    await core.drain(5)
    assert [one.status for one in await core.workflows.runs(slug="child")] == ["cancelled"]
    assert await core.engine.store.timers(1e12) == []


async def test_no_address_for_answers(far: Elsewhere, anyio_backend: Any) -> None:
    async with EventCore() as core:
        engines = Engines([far], SystemClock(), make_tokens(WorkflowSettings(), None, SystemClock()))
        core.workflows.registry.elsewhere = engines
        core.engine.runner._calls._others["workflow"].__self__._external = engines
        with pytest.raises(RunFailed, match="nothing says where to"):
            await (await core.workflows.start("far")).result(5)
    assert far.seen == []


# -- secrets ----------------------------------------------------------------------------------------------------------


async def test_secrets_are_filled_in_for_the_call_and_masked_in_what_comes_of_it(
    core: EventCore, far: Elsewhere
) -> None:
    given: list[Any] = []

    async def login(params: Any) -> Any:
        given.append(params["key"])
        if params.get("fail"):
            raise PluginFailed(f"bad key {TOKEN}")
        return {"echo": [f"key={params['key']}"], params["key"]: 1}

    core.plugins.intent("login", login)
    secret = "{{ secrets.key }}"
    define(core, {"plugin": "login", "with": {"key": secret}})
    assert await (await core.workflows.start("w")).result(5) == {"echo": ["key=***"], "***": 1}
    define(core, {"plugin": "login", "with": {"key": secret, "fail": True}})
    with pytest.raises(RunFailed, match=r"bad key \*\*\*"):
        await (await core.workflows.start("w")).result(5)
    far.wait = "response"
    define(core, {"workflow": "far", "with": {"key": secret}})
    await (await core.workflows.start("w")).result(5)
    assert given == [TOKEN] * 2
    assert far.seen[0].params == {"key": TOKEN}
    assert not [event async for event in core.history.query() if TOKEN.encode() in event.raw]


async def test_a_secret_with_text_around_it(core: EventCore) -> None:
    given: list[Any] = []

    async def login(params: Any) -> None:
        del params["metadata"], params["user_context"]
        given.append(params)

    core.plugins.intent("login", login)
    header = " Bearer {{ secrets.key }}/{{ inputs.n }}/{{secrets.key}}"
    define(core, {"plugin": "login", "with": {"headers": [{"Authorization": header}], "n": "{{ inputs.n }}"}})
    run = await core.workflows.start("w", {"n": 7})
    await run.result(5)
    assert given == [{"headers": [{"Authorization": f" Bearer {TOKEN}/7/{TOKEN}"}], "n": 7}]
    assert not [event async for event in core.history.query() if TOKEN.encode() in event.raw]
    mark = {"$secret": "key"}
    [began] = [event async for event in core.history.query() if event.type == "step_started"]
    assert began.data["input"]["headers"][0]["Authorization"] == {"$secret": [" Bearer ", mark, "/7/", mark, ""]}


async def test_what_looks_like_a_mark_in_data_is_data(core: EventCore) -> None:
    """Or who sends an event could have a step send its secret to where the text of the event goes."""
    given: list[Any] = []

    async def post(params: Any) -> None:
        given.append([params["key"], params["text"], params["all"]])

    core.plugins.intent("post", post)
    texts = {"text": "{{ inputs.text }}", "all": "{{ inputs.text }} to {{ secrets.key }}"}
    define(core, {"plugin": "post", "with": {"key": "{{ secrets.key }}", **texts}})
    mark = {"$secret": "key"}
    await (await core.workflows.start("w", {"text": mark})).result(5)
    assert given == [[TOKEN, mark, f"{mark} to {TOKEN}"]]


async def test_secrets_are_masked_in_an_answer_too(core: EventCore, far: Elsewhere) -> None:
    define(core, {"workflow": "far", "with": {"key": "{{ secrets.key }}"}})
    run = await core.workflows.start("w")
    await parked(core)
    await core.workflows.answer(far.token(), {"you sent": f"key={TOKEN}"})
    assert await run.result(5) == {"you sent": "key=***"}
    assert not [event async for event in core.history.query() if TOKEN.encode() in event.raw]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"plugin": "login", "with": {"key": "B {{ secrets.key + 'x' }}"}}, r"with\.key: .*stands by itself"),
        ({"plugin": "login", "with": {"a": ["{{ secrets.key | upper }}"]}}, r"with\.a\[0\]: .*stands by itself"),
        (
            {"plugin": "login", "with": {"a": "{{ secrets.b }}{{ secrets.key | upper }}"}},
            r"with\.a: .*stands by itself",
        ),
        ({"plugin": "login", "with": {"key": "{{ secrets['key'] }}"}}, "stands by itself"),
        ({"emit": "told", "with": {"key": "{{ secrets.key }}"}}, "'secrets' is not available"),
        ({"wait_for": {"event": "e", "match": {"key": "{{ secrets.key }}"}}}, "'secrets' is not available"),
        ({"approve": {"message": "{{ secrets.key }}?"}}, "'secrets' is not available"),
    ],
)
async def test_no_secret_where_only_its_name_would_come(core: EventCore, step: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidDefinition, match=why):
        define(core, step)


@pytest.mark.parametrize("step", [{"workflow": "child"}, {"hook": "on_message"}], ids=["child", "hook"])
async def test_no_secret_into_what_is_stored(core: EventCore, step: dict[str, Any]) -> None:
    core.workflows.define({"slug": "child", "steps": [{"id": "z", "emit": "done"}]})
    define(core, {**step, "with": {"text": "{{ secrets.key }}"}})
    with pytest.raises(RunFailed, match=r"a puts a secret into .*, which is stored"):
        await (await core.workflows.start("w")).result(5)


async def test_a_header_whose_secret_is_not_set() -> None:
    from eventcore.app.other_engines import make_engines

    one = {"base_url": "http://127.0.0.1:9", "headers": {"x-key": {"secret": "nothing"}}}
    settings = WorkflowSettings.model_validate({"engines": {"n8n": one}})
    engines = make_engines(settings, Named(), SystemClock(), None, make_tokens(settings, None, SystemClock()))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"workflows\.engines\.n8n\.headers\.x-key names a secret that is not set"):
        await engines.find("any").start(ExternalStart("any", {}, "k", "t"))  # type: ignore[union-attr]
