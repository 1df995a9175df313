"""`ctx.scheduler`: what shall happen later, once or again and again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from eventcore.sdk.binding import Answer, current


class SchedulerContext:
    """`ctx.scheduler`; needs `scheduler`."""

    def plan(
        self,
        name: str,
        at: datetime | str | float | None = None,
        *,
        after: float | timedelta | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        emit: str | None = None,
        call: str | None = None,
        data: Any = None,
    ) -> Answer[dict[str, Any]]:
        """Plan an event or a call. The plan survives restarts; committed with the success of the call.

        One of `at`, `after` and `cron` says when.

        Args:
            name: of the plan; another plan of this plugin with the same name is replaced.
            at: a time: datetime or ISO text (in `timezone` where it says none), or seconds since the epoch.
            after: seconds, or a timedelta, from now.
            cron: five fields, read in `timezone`.
            emit: the event to emit; one that the manifest lists or of the plugin's own prefix. Without it and `call`:
                the event `name` if the manifest lists it, else `<plugin>.<name>`.
            call: the intent to call instead. One of another plugin needs `plugin_communication` too.
            data: the event's data, or the parameters of the call; at most 64 KiB of JSON.
        """
        asked = {
            "name": name,
            "at": at.isoformat() if isinstance(at, datetime) else at,
            "after": after.total_seconds() if isinstance(after, timedelta) else after,
            "cron": cron,
            "timezone": timezone,
            "emit": emit,
            "call": call,
            "data": data,
        }
        return current().ask("scheduler.plan", asked)

    def cancel(self, name: str) -> Answer[bool]:
        """Give a plan up; whether there was one."""
        return current().ask("scheduler.cancel", {"name": name})

    def list(self) -> Answer[list[dict[str, Any]]]:
        """This plugin's plans: name, when they are next, what they do."""
        return current().ask("scheduler.list", {})
