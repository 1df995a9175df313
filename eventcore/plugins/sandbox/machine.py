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
            SandboxUnavailable: naming what is missing, the errno, and what to do.
        """
        lacks = self.missing()
        allow = spec.allow
        if allow.full or allow.programs:
            lacks += [row for row in self.means if row["needed"] == "full" and not row["works"]]
            if not lacks and not self.namespaces:
                raise unavailable(spec.slug, "namespaces", "", "they are switched off", "sandbox.namespaces = true")
        if allow.ports and not self.row("landlock tcp")["works"]:
            lacks.append(self.row("landlock tcp"))
        if lacks:
            first = lacks[0]
            raise unavailable(spec.slug, first["name"], first["errno"], first["detail"], first["remedy"])


def unavailable(slug: str, means: str, number: str, detail: str, remedy: str) -> SandboxUnavailable:
    """The error that refuses a plugin."""
    why = f"{number}: {detail}" if number else detail
    return SandboxUnavailable(
        f"{slug} is not run: the sandbox needs {means}, which does not work here ({why})",
        kind="SandboxUnavailable",
        hint=f"needed: {remedy}; `eventcore sandbox check` shows all",
        means=means,
        errno=number,
    )
