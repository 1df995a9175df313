"""Makes system calls fail with EPERM and runs a Python script under that: `masked.py CALL... -- SCRIPT ARGUMENT...`."""

from __future__ import annotations

import os
import sys

from eventcore.plugins.sandbox.linux import bpf, calls, seccomp


def main() -> None:
    end = sys.argv.index("--")
    arch = calls.arch()
    rules = [bpf.Rule(arch.calls[name], bpf.errno(1)) for name in sys.argv[1:end]]
    code = bpf.assemble(arch.audit, rules, x32=False, known=1 << 29, unknown=bpf.ALLOW, default=bpf.ALLOW)
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(code)
    os.execv(sys.executable, [sys.executable, *sys.argv[end + 1 :]])


if __name__ == "__main__":
    main()
