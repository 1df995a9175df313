"""`eventcore emit`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import click

from eventcore.cli.base import FAILED, JsonText, examples, face

if TYPE_CHECKING:
    from eventcore.cli.session import Session

#: Longest line that is read, in bytes. An event is far smaller, but a line of JSON may hold white space.
MAX_LINE = 1024 * 1024
#: How many errors `--json` lists; stderr has them all.
_LISTED = 100
_PROGRESS = 0.2
_FORMATS = ("auto", "cloudevents", "lines")
#: Why a line is refused, without and with a TYPE.
_NO_CLOUDEVENT = {
    False: "no CloudEvent: it has no specversion",
    True: "no CloudEvent, and there is no TYPE for plain lines",
}


@click.command(
    name="emit",
    epilog=examples(
        "eventcore emit order_created '{\"id\": 1}'",
        "git log --oneline | eventcore emit commit_pushed --from -",
        "eventcore emit reading_taken --from readings.ndjson --strict",
        "eventcore emit --from events.ndjson --format cloudevents",
    ),
)
@click.argument("type", required=False, metavar="TYPE")
@click.argument("data", type=JsonText(), required=False, metavar="[JSON]")
@click.option("--from", "source_file", metavar="FILE", help="One event for each line of FILE; - is stdin.")
@click.option(
    "--format", "line_format", type=click.Choice(_FORMATS), help="What the lines of --from are; default auto."
)
@click.option("--strict", is_flag=True, help="With --from: stop at the first line that is refused.")
@click.option("--subject", metavar="SUBJECT", help="What the event is about.")
@click.option("--key", metavar="KEY", help="Events of one key are handled in order.")
@click.option("--source", default="/cli", show_default=True, metavar="SOURCE", help="Where it comes from.")
@click.option("--idempotency-key", metavar="KEY", help="The same key again records nothing and finds the first event.")
@click.option("--wait/--no-wait", default=True, help="Wait until what it sets off has come to rest; default yes.")
@click.option("--timeout", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS")
@face
def command(
    type: str | None, data: Any, source_file: str | None, line_format: str | None, as_json: bool, **options: Any
) -> None:
    """Record an event, or one for each line of a file.

    TYPE is a name like order_created. JSON is its data.

    With --from, a line that is a JSON object is the data of its event (NDJSON); any other line becomes {"text": line};
    empty lines are skipped. A line that is refused is reported with its number, the others go on, and the exit code is
    1. Lines are recorded in their order.

    A line with a CloudEvent 1.0, or a JSON array of them, has a type, source and id of its own; TYPE and the options
    about the event do not count for it. --format cloudevents accepts nothing else and needs no TYPE; --format lines
    takes every line as data; auto finds CloudEvents by their specversion.
    """
    if source_file is None:
        if options.pop("strict"):
            raise click.UsageError("--strict goes with --from")
        if line_format is not None:
            raise click.UsageError("--format goes with --from")
        if type is None:
            raise click.UsageError("Missing argument 'TYPE'.")
        _emit_one(type, data, as_json, **options)
        return
    if data is not None:
        raise click.UsageError("give JSON, or --from FILE, not both")
    if options.pop("idempotency_key") is not None:
        raise click.UsageError("--idempotency-key is for one event; with --from every line would have the same key")
    line_format = line_format or "auto"
    if type is None and line_format == "lines":
        raise click.UsageError("Missing argument 'TYPE': plain lines have none of their own")
    _emit_lines(type, line_format, source_file, as_json, **options)


def _emit_one(type: str, data: Any, as_json: bool, wait: bool, timeout: float, **about: Any) -> None:
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect() as session:
        receipt = session.call("events.emit", {"type": type, "data": data, **about})
        settled = _settle(session, wait, timeout)
        runs = _runs(session, receipt["position"])
    if as_json:
        print_json({**receipt, "runs": runs, "settled": settled})
    else:
        word = "recorded before" if receipt["duplicate"] else "recorded"
        click.echo(f"{word} {type} at {receipt['position']}, id {receipt['id']}{_runs_text(runs)}")
    _end(settled, timeout)


@dataclass
class _Lines:
    """What became of the lines of a file."""

    type: str | None
    format: str
    about: dict[str, Any]
    strict: bool
    as_json: bool
    emitted: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    shown: float = 0.0

    def requests(self, lines: Iterator[tuple[int, bytes | None]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """What is asked for each line (of `events.emit_lines`), read as there is room."""
        for number, line in lines:
            if line is None:
                self.refuse(number, {"code": "invalid_payload", "message": f"longer than {MAX_LINE:,} bytes"})
            elif line.strip():
                if (request := self._request(line)) is not None:
                    yield number, request
                else:
                    self.refuse(number, {"code": "invalid_payload", "message": _NO_CLOUDEVENT[self.type is None]})
            if self.strict and self.failed:
                return

    def _request(self, line: bytes) -> dict[str, Any] | None:
        """What to ask for a line; None if it is none of those that are wanted."""
        bodies = cloudevents_of(line) if self.format != "lines" else None
        if bodies is not None:
            return {"cloudevents": bodies}
        if self.type is None or self.format == "cloudevents":
            return None
        return {"type": self.type, "data": _data(line), **self.about}

    def refuse(self, number: int, error: dict[str, Any]) -> None:
        from eventcore.cli.output import clean

        self.failed += 1
        if len(self.errors) < _LISTED:
            self.errors.append({"line": number, **error})
        if not self.as_json:
            self._clear()
            click.echo(f"line {number}: {clean(error['message'])}", err=True)

    def accept(self, events: int) -> None:
        self.emitted += events
        if sys.stderr.isatty() and time.monotonic() - self.shown > _PROGRESS:
            self.shown = time.monotonic()
            click.echo(f"\r{self.emitted:,} events", err=True, nl=False)

    def _clear(self) -> None:
        if self.shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _emit_lines(
    type: str | None, format: str, file: str, as_json: bool, strict: bool, wait: bool, timeout: float, **about: Any
) -> None:
    from eventcore.cli.failure import say
    from eventcore.cli.output import clean
    from eventcore.cli.session import WINDOW, connect
    from eventcore.kernel.errors import EventCoreError, RemoteError

    began = time.monotonic()
    given = {name: value for name, value in about.items() if value is not None}
    lines = _Lines(type, format, given, strict, as_json)
    with _open(file) as source, connect() as session:
        before = session.call("status")["position"]
        try:
            # Strict: the next line waits for this one's receipt, so that nothing after a bad line is recorded.
            requests = lines.requests(numbered(source))
            for number, done in session.many("events.emit_line", requests, 1 if strict else WINDOW):
                if isinstance(done, EventCoreError):
                    lines.refuse(number, done.as_dict())
                else:
                    lines.accept(len(done.get("receipts", (done,))))
        except RemoteError as error:
            message = f"the engine has gone ({clean(error.message)}); later lines may or may not be recorded"
            say({"message": message, "hint": "look at eventcore events list, then send the rest"})
            raise click.exceptions.Exit(FAILED) from None
        finally:
            lines._clear()
        settled = _settle(session, wait, timeout)
        runs = _runs(session, before)
    _summary(lines, runs, settled, time.monotonic() - began)
    _end(settled, timeout)
    if lines.failed:
        raise click.exceptions.Exit(FAILED)


def _summary(lines: _Lines, runs: dict[str, int], settled: bool | None, seconds: float) -> None:
    from eventcore.cli.output import duration, plural, print_json

    if lines.as_json:
        counts = {"emitted": lines.emitted, "failed": lines.failed, "runs": runs, "settled": settled}
        print_json({"type": lines.type, **counts, "seconds": round(seconds, 3), "errors": lines.errors})
        return
    failed = f", {click.style(f'{lines.failed:,} failed', fg='red')}" if lines.failed else ""
    click.echo(f"{plural(lines.emitted, 'event')} recorded{failed}{_runs_text(runs)}, in {duration(seconds)}")


@contextmanager
def _open(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = open(file, "rb")  # noqa: SIM115 - closed below; opening is what may fail
    except OSError as error:
        raise click.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="--from") from None
    with source:
        yield source


def numbered(source: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """(number, line); None for a line that is too long, which is read over without being kept."""
    number = 0
    while line := source.readline(MAX_LINE + 1):
        number += 1
        whole = len(line) <= MAX_LINE
        yield number, line if whole else None
        while not whole and not line.endswith(b"\n") and (line := source.readline(MAX_LINE)):
            pass


def cloudevents_of(line: bytes) -> list[Any] | None:
    """The CloudEvents of a line: one, or those of a batch; None if it holds none."""
    if b'"specversion"' not in line:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    bodies = value if isinstance(value, list) else [value]
    return bodies if bodies and all(isinstance(body, dict) and "specversion" in body for body in bodies) else None


def _data(line: bytes) -> dict[str, Any]:
    # Old logs hold all sorts of bytes; a replacement character beats a lost line.
    text = line.decode("utf-8", "replace").strip("\r\n")
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
    return {"text": text}


def _settle(session: Session, wait: bool, timeout: float) -> bool | None:
    """Whether all came to rest in time; None if nobody waited."""
    if wait:
        return session.settle(timeout)
    session.drain = 0
    return None


def _runs(session: Session, after: int) -> dict[str, int]:
    counts = session.call("events.summary", {"after": after}, timeout=120)["by_type"]
    failed = counts.get("workflow_failed", 0)
    ended = counts.get("workflow_completed", 0)
    return {
        "started": counts.get("workflow_started", 0),
        "completed": max(0, ended - failed - counts.get("workflow_cancelled", 0)),
        "failed": failed,
    }


def _runs_text(runs: dict[str, int]) -> str:
    from eventcore.cli.output import plural

    if not runs["started"]:
        return ""
    failed = f", {click.style(str(runs['failed']) + ' failed', fg='red')}" if runs["failed"] else ""
    return f"; {plural(runs['started'], 'run')} started, {runs['completed']:,} completed{failed}"


def _end(settled: bool | None, timeout: float) -> None:
    if settled is False:
        click.echo(f"not at rest after {timeout:g} s; see eventcore runs list. What is left goes on", err=True)
        raise click.exceptions.Exit(FAILED)
