"""`eventcore plugins test`: one call, many at once, or the tests that lie beside a plugin."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from eventcore.cli.base import FAILED, JsonText, examples, face

#: Names the folder of the plugin whose tests run; `eventcore.testing.pytest_plugin` makes its code importable.
ENV_UNDER_TEST = "EVENTCORE_PLUGIN_UNDER_TEST"

Call = Callable[[dict[str, Any]], Any]


@click.command(
    "test",
    epilog=examples(
        'eventcore plugins test hello-world --params \'{"name": "Ada"}\'',
        "eventcore plugins test plugins/my-plugin --coverage",
        "eventcore plugins test hello-world --load 100",
    ),
)
@click.argument("target", default=".", metavar="[NAME or PATH]")
@click.option("--params", type=JsonText("object"), metavar="JSON", help="Make one call with these parameters.")
@click.option("--input", "text", metavar="TEXT", help='Make one call with {"input": TEXT}.')
@click.option("--load", type=click.IntRange(1, 100_000), metavar="N", help="Make N calls, and print rate and times.")
@click.option(
    "--at-once", type=click.IntRange(1, 1000), default=100, show_default=True, help="With --load: so many at once."
)
@click.option("--grant", "grants", multiple=True, metavar="PERMISSION", help="For a PATH: grant it; repeat for more.")
@click.option("--coverage", is_flag=True, help="Print which lines the plugin's tests ran; needs the package coverage.")
@face
def test(
    target: str,
    params: Any,
    text: str | None,
    load: int | None,
    at_once: int,
    grants: tuple[str, ...],
    coverage: bool,
    as_json: bool,
) -> None:
    """Test a plugin: by a call in its sandbox, or by running its tests.

    With --params, --input or --load the plugin is called: a NAME in its home, the folder at a PATH in an engine of its
    own that keeps nothing. Otherwise the folder's tests/ are run by pytest, where they can import the plugin's code
    under its name with underscores: `from my_plugin.handler import run`.
    """
    from eventcore.kernel.errors import InvalidInput

    if params is not None and text is not None:
        raise InvalidInput("give --params or --input, one of the two")
    if params is None and text is None and load is None:
        raise click.exceptions.Exit(_run_tests(_folder(target), coverage))
    body = {"input": text} if text is not None else params or {}
    if _is_path(target):
        _in_folder(Path(target), body, load, at_once, grants, as_json)
    else:
        _in_home(target, body, load, at_once, as_json)


def _is_path(target: str) -> bool:
    return target in (".", "..") or os.sep in target


def _in_home(name: str, body: dict[str, Any], load: int | None, at_once: int, as_json: bool) -> None:
    from eventcore.cli.session import connect

    with connect() as session:
        _do(
            lambda params: session.call("plugins.call", {"name": name, "params": params}, 3600),
            body,
            load,
            at_once,
            as_json,
        )


def _in_folder(
    path: Path, body: dict[str, Any], load: int | None, at_once: int, grants: tuple[str, ...], as_json: bool
) -> None:
    from eventcore.app.plugin_api import hosting
    from eventcore.app.plugin_api.place import Place

    place = Place(None, path.resolve())
    link = hosting.Link(place)
    try:
        name = _slug_in(link, path.resolve())
        link.call("plugins.enable", {"name": name, "grants": list(grants)})
        _do(lambda params: link.call("plugins.call", {"name": name, "params": params}), body, load, at_once, as_json)
    finally:
        hosting.close(place)


def _slug_in(link: Any, path: Path) -> str:
    from eventcore.kernel.errors import NotFound

    for row in link.call("plugins.list"):
        if Path(row["path"]) == path:
            return str(row["slug"])
    raise NotFound(f"{path} is no plugin's folder: it has no manifest")


def _do(call: Call, body: dict[str, Any], load: int | None, at_once: int, as_json: bool) -> None:
    if load is not None:
        _load_test(call, body, load, at_once, as_json)
        return
    from eventcore.cli.output import clean, pretty, print_json

    done = call(body)
    if as_json:
        print_json(done)
    else:
        for words in filter(None, (done["stdout"], done["stderr"])):
            click.echo(clean(words, lines=True).rstrip("\n"), err=True)
        result = done["result"]
        click.echo(clean(result, lines=True) if isinstance(result, str) else pretty(result))
    if _failed(done):
        raise click.exceptions.Exit(FAILED)


def _failed(done: dict[str, Any]) -> bool:
    return isinstance(done["result"], dict) and done["result"].get("success") is False


def _load_test(call: Call, body: dict[str, Any], load: int, at_once: int, as_json: bool) -> None:
    from eventcore.cli.output import clean, duration, fields, print_json
    from eventcore.kernel.errors import EventCoreError

    times: list[float] = []
    errors: list[str] = []

    def once(_: int) -> None:
        began = time.perf_counter()
        try:
            if _failed(call(body)):
                errors.append("the plugin answered success: false")
        except EventCoreError as error:
            errors.append(str(error))
        times.append(time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(min(at_once, load)) as pool:
        list(pool.map(once, range(load)))
    took = time.perf_counter() - began
    times.sort()
    marks = {f"p{mark}": times[min(len(times) - 1, len(times) * mark // 100)] for mark in (50, 95, 99)}
    report = {"calls": load, "failures": len(errors), "seconds": took, "per_second": load / took, **marks}
    if as_json:
        print_json({**report, "errors": sorted(set(errors))[:10]})
    else:
        counts = [
            ("calls", f"{load:,}"),
            ("failed", f"{len(errors):,}"),
            ("rate", f"{load / took:,.0f} calls a second"),
        ]
        fields([*counts, *((name, duration(value)) for name, value in marks.items())])
        for error in sorted(set(errors))[:10]:
            click.echo(f"failed: {clean(error)}", err=True)
    if errors:
        raise click.exceptions.Exit(FAILED)


# -- the plugin's own tests --------------------------------------------------------------------------------------------


def _folder(target: str) -> Path:
    if _is_path(target):
        return Path(target).resolve()
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        return Path(session.call("plugins.info", {"name": target})["path"])


def _run_tests(folder: Path, coverage: bool) -> int:
    from eventcore.kernel.errors import InvalidInput, NotFound

    if not (folder / "tests").is_dir():
        raise NotFound(f"{folder} has no tests/", hint="to make one call instead: --params '{}'")
    for package in ("pytest", "coverage") if coverage else ("pytest",):
        if importlib.util.find_spec(package) is None:
            raise InvalidInput(f"the package {package} is not installed here", hint=f"pip install {package}")
    pytest = ["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "--import-mode", "importlib", "tests"]
    environ = {**os.environ, ENV_UNDER_TEST: str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    if not coverage:
        return _python(["-m", *pytest], folder, environ)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="eventcore-coverage-") as scratch:
        environ["COVERAGE_FILE"] = str(Path(scratch, "data"))
        leave_out = ["--source", str(folder), "--omit", f"{folder}/tests/*"]
        code = _python(["-m", "coverage", "run", *leave_out, "-m", *pytest], folder, environ)
        _python(["-m", "coverage", "report", "-m"], folder, environ)
    return code


def _python(words: list[str], folder: Path, environ: dict[str, str]) -> int:
    sys.stdout.flush()
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environ, check=False)  # noqa: S603 - our own words
    return FAILED if done.returncode else 0
