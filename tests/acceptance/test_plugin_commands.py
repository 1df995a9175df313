"""I7, I10, I11, K3, J16: plugins at work, on the command line."""

from __future__ import annotations

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import PluginFailed
from tests.acceptance.conftest import HomeFolder, QuickHome

HEALTHY = """
class Sickly:
    def __init__(self, config):
        self.calls = 0

    def execute(self, params):
        self.calls += 1
        return {"calls": self.calls}

    def health_check(self):
        return {"status": %r, "reason": "the well is dry", "uptime": 3}
"""


@pytest.mark.req("I7")
def test_one_call_the_plugins_tests_and_their_coverage(quick: QuickHome) -> None:
    code = (
        "def run(params):\n    if params.get('input'):\n        return params['input'].upper()\n    return 'nothing'\n"
    )
    folder = quick.plugin("loud-voice", code).parent
    quick.write(
        "plugins/loud-voice/tests/test_voice.py",
        "import pytest\n"
        "from loud_voice.handler import run\n\n"
        "def test_loud():\n    assert run({'input': 'a'}) == 'A'\n\n"
        "@pytest.mark.asyncio\nasync def test_in_a_loop():\n    assert run({'input': 'b'}) == 'B'\n\n"
        "def test_in_the_sandbox(eventcore_home):\n"
        f"    eventcore_home.install({str(folder)!r})\n"
        "    assert eventcore_home.call('loud-voice', {'input': 'c'}) == 'C'\n",
    )
    quick.settings('[plugins]\nenabled = ["loud-voice"]')
    assert quick.json("plugins", "test", "loud-voice", "--params", '{"input": "hey"}')["result"] == "HEY"
    assert quick.run("plugins", "test", "loud-voice", "--input", "hello").stdout == "HELLO\n"
    by_path = quick.run("plugins", "test", "plugins/loud-voice", "--input", "there")
    assert (by_path.returncode, by_path.stdout) == (0, "THERE\n"), by_path.stderr
    apart = HomeFolder(quick.root)  # pytest is a process of its own, which writes where this one does
    tests = apart.run("plugins", "test", "loud-voice", "--coverage")
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "3 passed" in tests.stdout
    assert "handler.py       4      1    75%   4" in tests.stdout
    quick.write("plugins/loud-voice/tests/test_wrong.py", "def test_no():\n    assert False\n")
    assert apart.run("plugins", "test", "plugins/loud-voice").returncode == 1


def test_a_folder_without_tests_says_how_to_call_it(home: HomeFolder) -> None:
    home.plugin("untested", "def run(params): return {'success': False}")
    done = home.run("plugins", "test", "plugins/untested")
    assert done.returncode == 1
    assert "--params" in done.stderr
    assert home.run("plugins", "test", "plugins/untested", "--params", "{}").returncode == 1


@pytest.mark.req("K3")
def test_a_hundred_calls_at_once(quick: QuickHome) -> None:
    code = "import asyncio\nasync def run(params):\n    await asyncio.sleep(0.5)\n    return params['n']"
    quick.plugin("patient", code)
    report = quick.json("plugins", "test", "plugins/patient", "--params", '{"n": 1}', "--load", "100")
    assert (report["calls"], report["failures"], report["errors"]) == (100, 0, [])
    assert 0.5 < report["p50"] <= report["p95"] <= report["p99"]
    assert report["per_second"] > 100 / 25  # one after the other they would take 50 s
    words = quick.run("plugins", "test", "plugins/patient", "--params", '{"n": 1}', "--load", "10").stdout
    assert "calls a second" in words
    assert "p99" in words


@pytest.mark.req("I10")
def test_health_and_metrics(quick: QuickHome) -> None:
    quick.settings('[plugins]\nenabled = ["well", "sickly", "plain"]')
    quick.plugin("well", HEALTHY % "healthy", **{"class": "Sickly"})
    quick.plugin("sickly", HEALTHY % "unhealthy", **{"class": "Sickly"})
    quick.plugin("plain", "def run(params):\n    if 'x' in params: raise ValueError('x')\n    return 1")
    reports = {one["plugin"]: one for one in quick.json("plugins", "health", "well")}
    assert (reports["well"]["status"], reports["well"]["version"], reports["well"]["details"]["uptime"]) == (
        "healthy",
        "1.0.0",
        3,
    )
    done = quick.run("plugins", "health")
    assert done.returncode == 1
    assert [line.split()[2] for line in done.stdout.splitlines()[1:]] == ["healthy", "unhealthy", "healthy"]
    assert "the well is dry" in done.stdout
    with EventCore.sync(quick.root) as core:
        for _ in range(2):
            core.plugins.run("plain")
        core.plugins.run_plugin("plain", {}, {})  # whose result is remembered
        with pytest.raises(PluginFailed):
            core.plugins.run("plain", {"x": 1})
        core.plugins.run("well")
    found = {one["plugin"]: one for one in quick.json("plugins", "metrics")}
    assert (found["plain"]["calls"], found["plain"]["failures"], found["plain"]["failure_rate"]) == (4, 1, 0.25)
    assert 0 < found["plain"]["mean_seconds"] <= found["plain"]["p95_seconds"]
    assert found["plain"]["last_used"] is not None
    assert (found["plain"]["memories"], found["plain"]["starts_failed"]) == (1, 0)
    assert found["well"]["calls"] == 1
    quick.plugin("unwell", "def run(params:")
    assert quick.run("plugins", "enable", "unwell").returncode == 1
    [unwell] = quick.json("plugins", "metrics", "unwell")
    assert (unwell["calls"], unwell["starts_failed"]) == (0, 1)
    assert "plain" in quick.run("plugins", "metrics", "plain").stdout
    text = quick.run("plugins", "metrics", "--format", "prometheus").stdout
    assert "# TYPE plugin_calls_total counter" in text
    assert "eventcore_" not in text


@pytest.mark.req("I11")
def test_debug_shows_what_a_call_does(quick: QuickHome) -> None:
    code = (
        "from eventcore.sdk import ctx\n"
        "def run(params):\n"
        "    name = params['name'].title()\n"
        "    print('greeting', name)\n"
        "    ctx.memory.write('greeted', name)\n"
        "    return {'text': 'Hello ' + name}\n"
    )
    quick.plugin("polite", code, permissions=["memory_write"])
    quick.write("plugins/polite/prompt.txt", "Greet {{ name }} {% if title %}as {{ title }}{% endif %}kindly\n")
    quick.settings('[plugins]\nenabled = ["polite"]\n[plugins.grants]\npolite = ["memory_write"]')
    words = ("plugins", "debug", "polite", "--params", '{"name": "ada"}', "--break", "handler.py:4", "--trace")
    shown = quick.run(*words, "--verbose").stdout
    for part in (
        '"name": "ada"',
        "Greet ada kindly",
        "memory_write: granted",
        '"text": "Hello Ada"',
        "greeting Ada",
        "name = 'Ada'",
        "handler.py:6 run",
        "the limit is 30.0 s",
        "1 memory",
    ):
        assert part in shown, part
    report = quick.json(*words)
    assert report["breakpoints"][0]["locals"]["name"] == "'Ada'"
    assert [line["line"] for line in report["trace"]] == [3, 4, 5, 6]
    failed = quick.run("plugins", "debug", "polite", "--params", '{"name": 3}')
    assert failed.returncode == 1
    assert "AttributeError" in failed.stdout


def test_logs_survive_the_engine(quick: QuickHome) -> None:
    code = (
        "import logging\n"
        "from eventcore.sdk import ctx\n"
        "def run(params):\n"
        "    ctx.log('info', 'first')\n"
        "    try:\n"
        "        raise ValueError('broken\\x1b[2J')\n"
        "    except ValueError:\n"
        "        logging.getLogger('polite').error('second', exc_info=True)\n"
    )
    quick.plugin("chatty", code)
    with EventCore.sync(quick.root) as core:
        core.plugins.enable("chatty")
        core.plugins.run("chatty")
    done = quick.run("plugins", "logs", "chatty")
    assert done.returncode == 0
    assert done.stdout.index("first") < done.stdout.index("second") < done.stdout.index("ValueError: broken")
    assert "\x1b[2J" not in done.stdout
    assert len(quick.run("plugins", "logs", "chatty", "--limit", "1", "--json").stdout.splitlines()) == 1


WATCHER = """
from eventcore.sdk import ctx

def note_run(event):
    ctx.log("info", f"{event.type} {event.data['slug']}")
"""


@pytest.mark.req("I17")
def test_a_function_is_hooked_to_events_for_good(quick: QuickHome) -> None:
    quick.settings('[plugins]\nenabled = ["my-monitor-plugin"]')
    quick.plugin("my-monitor-plugin", WATCHER)
    quick.write("workflows/tiny.yaml", "slug: tiny\nsteps:\n  - {id: rest, sleep: 0}\n")
    words = ("plugins", "hook", "my-monitor-plugin", "--events", "workflow_started,workflow_completed", "--callback")
    done = quick.json(*words, "note_run")
    assert [one["event"] for one in done["hooks"]] == ["workflow_completed", "workflow_started"]
    for _ in range(2):  # each is an engine of its own: the first one after a restart, and another
        assert quick.run("workflows", "start", "tiny", "--wait").returncode == 0
    logged = [one.split("Z ")[-1] for one in quick.run("plugins", "logs", "my-monitor-plugin").stdout.splitlines()]
    assert [line.split()[-2:] for line in logged] == [["workflow_started", "tiny"], ["workflow_completed", "tiny"]] * 2
    wrong = quick.run(*words, "note_runs")
    assert wrong.returncode == 2
    assert "did you mean 'note_run'" in wrong.stderr
    unknown = quick.run("plugins", "hook", "my-monitor-plugin", "--events", "workflow_begun", "--callback", "note_run")
    assert unknown.returncode == 2
    assert "nothing emits the event 'workflow_begun'" in unknown.stderr
    left = quick.json("plugins", "hook", "my-monitor-plugin", "--events", "workflow_started", "--remove")
    assert left["hooks"] == [{"event": "workflow_completed", "callback": "note_run"}]
    assert quick.json("plugins", "hook", "my-monitor-plugin", "--list")["hooks"] == left["hooks"]
