"""What this machine's sandbox enforces, as its probes found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.plugins.sandbox.spec import WorkerSpec


@dataclass(frozen=True, slots=True)
class Machine:
    """What was proven on this machine.

    Attributes:
        namespaces: whether workers get namespaces, and with them a view of their own.
        means: the rows of `probe.probe`, and the one of control groups.
        groups: whether control groups hold workers to their limits.
    """

    namespaces: bool
    means: tuple[dict[str, Any], ...]
    groups: bool = False

    @property
    def level(self) -> str:
        """`full`, `reduced` (no namespaces) or `none`."""
        if self.missing():
            return "none"
        return "full" if self.namespaces else "reduced"

    @property
    def abi(self) -> int:
        """The Landlock ABI; 0 where there is none."""
        detail = str(self.row("landlock")["detail"])
        return int(detail.removeprefix("ABI ")) if detail.startswith("ABI ") and self.row("landlock")["works"] else 0

    def row(self, name: str) -> dict[str, Any]:
        """One means."""
        return next(row for row in self.means if row["name"] == name)

    def missing(self, *needed: str) -> list[dict[str, Any]]:
        """What is needed (`always`, and those) and does not work."""
        return [row for row in self.means if row["needed"] in ("always", *needed) and not row["works"]]

    def check(self, spec: WorkerSpec) -> None:
        """Refuse a worker that this machine cannot confine as it must be.

        Raises:
            SandboxUnavailable: naming all that is missing, each with its errno, and what to do.
        """
        allow = spec.allow
        lacks = self.missing(*(("full",) if allow.full or allow.programs else ()))
        if allow.ports and not self.row("landlock tcp")["works"]:
            lacks.append(self.row("landlock tcp"))
        if lacks:
            raise lacking(spec.slug, lacks)
        if (allow.full or allow.programs) and not self.namespaces:
            raise unavailable(spec.slug, "namespaces", "", "they are switched off", "sandbox.namespaces = true")


def lacking(slug: str, rows: list[dict[str, Any]]) -> SandboxUnavailable:
    """The error that refuses a plugin for what a machine does not have.

    Args:
        rows: the missing means, at least one, the most important first.
    """
    names = ", ".join(row["name"] for row in rows)
    what = f"{names}, which {'does' if len(rows) == 1 else 'do'} not work here"
    whys = dict.fromkeys(_why(row["errno"], row["detail"]) for row in rows)
    remedies = dict.fromkeys(row["remedy"] for row in rows)
    return SandboxUnavailable(
        f"{slug} is not run: the sandbox needs {what} ({'; '.join(whys)})",
        kind="SandboxUnavailable",
        hint=f"needed: {'; and '.join(remedies)}; `eventcore sandbox check` shows all",
        means=rows[0]["name"],
        errno=rows[0]["errno"],
        missing=[{name: row[name] for name in ("name", "errno", "detail", "remedy")} for row in rows],
    )


def _why(number: str, detail: str) -> str:
    return f"{number}: {detail}" if number else detail


def unavailable(slug: str, means: str, number: str, detail: str, remedy: str) -> SandboxUnavailable:
    """The error that refuses a plugin."""
    return SandboxUnavailable(
        f"{slug} is not run: the sandbox needs {means}, which does not work here ({_why(number, detail)})",
        kind="SandboxUnavailable",
        hint=f"needed: {remedy}; `eventcore sandbox check` shows all",
        means=means,
        errno=number,
    )
