"""`eventcore chat`: messages in, replies and the timeline of what happened out."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from eventcore.cli.base import examples, face

if TYPE_CHECKING:
    from eventcore.cli.session import Session

#: Errors of one message. Any other ends the chat: the engine has gone.
_GONE = ("engine_not_running", "connection_lost", "timeout", "busy", "protocol_error", "home_in_use")


@click.command(
    name="chat",
    epilog=examples(
        "eventcore chat", "eventcore chat --user ada < transcript.txt", "echo hello | eventcore chat --json"
    ),
)
@click.option("--user", metavar="NAME", help="Who speaks; default your login name.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role of the user; repeat. Default: user.")
@click.option("--channel", default="#general", show_default=True, metavar="NAME", help="Where it is said.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait after a message for what it set off.",
)
@face
def command(user: str | None, roles: tuple[str, ...], channel: str, wait: float, as_json: bool) -> None:
    """Talk to the hooks and plugins, and see what happens.

    Each line is a message: it goes through gates and filters, is recorded, and is answered. A line that begins with a
    declared command such as /greet goes to its plugin. /help lists the commands, /quit (or Ctrl-D) ends.

    Lines that are piped in are played one after the other; empty lines and lines that begin with # are skipped. At the
    end a summary is printed and the exit code is 0, whatever single messages came to. With --json: an object for each
    message, then {"summary": ...}.
    """
    from eventcore.cli.session import connect

    logging.getLogger("eventcore.hooks").setLevel(logging.ERROR)  # a failed handler is shown with its message
    who = user or os.environ.get("USER") or os.environ.get("LOGNAME") or "you"
    with connect() as session:
        say = {"user": who, "channel": channel, "roles": list(roles) or None}
        talk = Talk(session, say, wait, as_json)
        try:
            for text in _typed(who, session) if sys.stdin.isatty() and not as_json else _piped():
                if text in ("/quit", "/exit"):
                    break
                if text == "/help":
                    talk.help()
                else:
                    talk.message(text)
        finally:
            talk.summary()


def _piped() -> Iterator[str]:
    for raw in sys.stdin.buffer:
        text = raw.decode("utf-8", "replace").strip()
        if text and not text.startswith("#"):
            yield text


def _typed(user: str, session: Session) -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401 - its import gives `input` editing and history
    click.echo(click.style(f"chat in {session.home.root}; /help lists commands, /quit ends", dim=True))
    while True:
        try:
            text = input(f"{user}> ").strip()
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return
        if text:
            yield text


@dataclass
class Talk:
    """One conversation.

    Attributes:
        say: parameters of every message.
        wait: seconds for what a message set off.
    """

    session: Session
    say: dict[str, Any]
    wait: float
    as_json: bool
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("messages", "denied", "replies", "errors"), 0)
    )
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.first: int = self.session.call("status")["position"]

    # -- one message -------------------------------------------------------------------------------------------------

    def message(self, text: str) -> None:
        """Say something, and show what came of it."""
        from eventcore.kernel.errors import EventCoreError

        self.counts["messages"] += 1
        if not self.as_json and not sys.stdin.isatty():
            self._echo_message(text)
        try:
            said = self.session.call("chat.say", {"text": text, **self.say}, timeout=120)
        except EventCoreError as error:
            if error.code in _GONE:
                raise
            self.counts["errors"] += 1
            self._failed(text, error.as_dict())
            return
        self.counts["denied"] += said["denied"]
        self.counts["replies"] += len(said["replies"])
        settled = self.session.settle(self.wait)
        found = self.session.call("events.show", {"id": said["event"]}) if said["event"] else None
        events = list(_below(found["tree"], said["event"])) if found else []
        if self.as_json:
            self._print_json(text, said, events, settled)
        else:
            self._print(said, events, settled)

    def _echo_message(self, text: str) -> None:
        from eventcore.cli.output import clean

        click.echo(f"{click.style('>', fg='cyan', bold=True)} {clean(text)}")

    def _failed(self, text: str, error: dict[str, Any]) -> None:
        from eventcore.cli.output import clean, print_json_line

        if self.as_json:
            print_json_line({"text": text, "user": self.say["user"], "error": error})
            return
        click.echo(f"  {click.style('error:', fg='red')} {clean(error['message'])}")
        if error.get("hint"):
            click.echo(f"    {click.style('try:', fg='cyan')} {clean(error['hint'])}")

    def _print(self, said: dict[str, Any], events: list[tuple[int, Any, Any]], settled: bool) -> None:
        from eventcore.cli.output import clean

        if said["denied"]:
            label = click.style("denied", fg="red", bold=True)
            click.echo(f"  {label} by {clean(str(said['by']))}: {clean(str(said['reason']))}")
        for by, reply in _with_owner(said):
            click.echo(f"  {click.style(clean(by) + ':', fg='green', bold=True)} {_reply_text(reply)}")
        for trace in said["trace"]:
            if trace["status"] in ("error", "timeout", "skipped"):
                label = click.style(f"{trace['handler']} {trace['status']}:", fg="red")
                click.echo(f"  {label} {clean(trace.get('error') or '')}")
        _timeline(events)
        if not settled:
            click.echo(f"  still at work after {self.wait:g} s; see eventcore events show {said['position']}")

    def _print_json(self, text: str, said: dict[str, Any], events: list[tuple[int, Any, Any]], settled: bool) -> None:
        from eventcore.cli.describe import about
        from eventcore.cli.output import print_json_line

        replies = [{"by": by, "reply": reply} for by, reply in _with_owner(said)]
        timeline = [
            {
                **{name: event.get(name) for name in ("position", "id", "type", "run", "causation_id")},
                "depth": depth,
                "about": about(event, cause),
            }
            for depth, event, cause in events
        ]
        head = {name: said[name] for name in ("hook", "denied", "reason", "by", "event", "position", "trace")}
        print_json_line(
            {"text": text, "user": self.say["user"], **head, "replies": replies, "settled": settled, "events": timeline}
        )

    # -- the conversation --------------------------------------------------------------------------------------------

    def help(self) -> None:
        """The commands that plugins declare."""
        from eventcore.cli.output import clean, dim, print_json_line

        commands = self.session.call("hooks.list")["commands"]
        if self.as_json:
            print_json_line({"commands": commands})
            return
        rows = [(one["usage"] or one["command"], f"{one['description']} ({one['owner']})") for one in commands]
        rows += [("/help", "List commands"), ("/quit", "End the chat")]
        width = max(len(usage) for usage, _ in rows)
        for usage, description in rows:
            click.echo(f"  {clean(usage.ljust(width))}  {dim(clean(description))}")

    def summary(self) -> None:
        """Counts of what was said and of everything recorded meanwhile."""
        from eventcore.cli.output import duration, plural, print_json_line

        found = self.session.call("events.summary", {"after": self.first}, timeout=120)
        types = found["by_type"]
        failed = types.get("workflow_failed", 0)
        runs = {
            "started": types.get("workflow_started", 0),
            "completed": max(0, types.get("workflow_completed", 0) - failed - types.get("workflow_cancelled", 0)),
            "failed": failed,
        }
        seconds = time.monotonic() - self.began
        if self.as_json:
            summary = {**self.counts, "runs": runs, "events": found["events"], "seconds": round(seconds, 3)}
            print_json_line({"summary": summary})
            return
        counts = self.counts
        said = [plural(counts["messages"], "message"), plural(counts["replies"], "reply", "replies")]
        said += [f"{counts['denied']} denied"] if counts["denied"] else []
        said += [plural(counts["errors"], "error")] if counts["errors"] else []
        ended = f"{runs['started']} started, {runs['completed']} completed, {runs['failed']} failed"
        click.echo(click.style("--", dim=True))
        click.echo(", ".join(said))
        click.echo(f"runs: {ended}; {plural(found['events'], 'event')} recorded in {duration(seconds)}")


def _below(roots: list[Any], event: str) -> Iterator[tuple[int, Any, Any]]:
    """What came of an event: everything below it in the tree."""
    from eventcore.cli.describe import walk

    for root in roots:
        if root["id"] == event:
            yield from walk(root)
            return
        yield from _below(root["effects"], event)


def _timeline(events: list[tuple[int, Any, Any]]) -> None:
    from eventcore.cli.describe import about, colour_of
    from eventcore.cli.output import dim, fit

    for depth, event, cause in events:
        left = f"  {event['position']:>4} {'  ' * min(depth, 12)}"
        words = fit(about(event, cause), len(left) + len(event["type"]) + 2)
        line = f"{dim(left)}{click.style(event['type'], fg=colour_of(event), dim=True)}  {dim(words)}"
        click.echo(line if words else line.rstrip())


def _with_owner(said: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (handler.partition(".")[0], reply) for handler, reply in zip(said["repliers"], said["replies"], strict=True)
    ]


def _reply_text(reply: Any) -> str:
    from eventcore.cli.output import clean, compact

    if isinstance(reply, dict):
        for name in ("text", "message", "response"):
            if isinstance(reply.get(name), str):
                # A reply of several lines stays under its author.
                return clean(reply[name].strip(), lines=True).replace("\n", "\n    ")
    return compact(reply)
