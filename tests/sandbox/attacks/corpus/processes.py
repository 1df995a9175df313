"""Other processes: making them, outliving the worker, disturbing those of the host."""

import ctypes
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time

from .raw import syscall, text


def fork_once(planted):
    """Forks.

    Stopped by: seccomp.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def fork_many(planted):
    """Forks 200 children that stay.

    Stopped by: seccomp; RLIMIT_NPROC.
    """
    pids = []
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            time.sleep(20)
            os._exit(0)
        pids.append(pid)
    return len(pids)


def daemon(planted):
    """Leaves a process behind that has no parent, no session, and ignores signals.

    Stopped by: seccomp; pid namespace.
    """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(20)
        os._exit(0)
    return "left"


def clone_by_call(planted):
    """Forks with clone3, which a filter cannot look into.

    Stopped by: seccomp.
    """
    args = (ctypes.c_uint64 * 11)()
    args[4] = signal.SIGCHLD
    pid = syscall("clone3", args, 88)
    if pid == 0:
        os._exit(0)
    return pid


def run_a_program(planted):
    """Runs a program of the host.

    Stopped by: seccomp; Landlock (EXECUTE); mount namespace.
    """
    return subprocess.run(["/bin/sh", "-c", "id"], capture_output=True, text=True, timeout=5).stdout


def become_a_program(planted):
    """Replaces itself by a shell that talks to the channel.

    Stopped by: seccomp; Landlock (EXECUTE); mount namespace.
    """
    script = "printf '\\000\\000\\000\\002{}' >&3; sleep 20"
    os.set_inheritable(3, True)
    os.dup2(int(sys.argv[1]), 3)
    with open(os.path.join(planted["workspace"], "became"), "w") as file:
        file.write("not yet")
    os.execv("/bin/sh", ["sh", "-c", f"echo yes >> '{planted['outside']}/left'; {script}"])


def many_threads(planted):
    """Starts 600 threads that stay.

    Stopped by: RLIMIT_NPROC.
    """
    for _ in range(600):
        threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
    return "started"


def kill_another(planted):
    """Kills a process of the host.

    Stopped by: seccomp; pid namespace; Landlock (ABI 6); another user.
    """
    os.kill(planted["victim"], signal.SIGKILL)
    return "killed"


def signal_the_host(planted):
    """Sends the host a signal (number 0, which only asks whether it could).

    Stopped by: seccomp; pid namespace; Landlock (ABI 6); another user.
    """
    os.kill(planted["host"], 0)
    return "could"


def signal_everybody(planted):
    """Sends a signal (0, as above) to all processes that there are.

    Stopped by: seccomp; pid namespace.
    """
    os.kill(-1, 0)
    return "could"


def signal_the_group(planted):
    """Sends a signal to the group of the host.

    Stopped by: seccomp; pid namespace.
    """
    os.killpg(os.getpgid(planted["host"]), 0)
    return "could"


def signal_by_pidfd(planted):
    """Kills by pidfd.

    Stopped by: seccomp; pid namespace.
    """
    fd = syscall("pidfd_open", planted["victim"], 0)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    return "killed"


def signal_by_thread(planted):
    """Kills by the number of a thread, with an older call.

    Stopped by: seccomp; pid namespace.
    """
    syscall("tkill", planted["victim"], signal.SIGKILL)
    return "killed"


def signal_through_a_file(planted):
    """Names another process as the owner of a pipe, so that the kernel signals it.

    Stopped by: seccomp (F_SETOWN, F_SETSIG).
    """
    read, write = os.pipe()
    fcntl.fcntl(read, 8, planted["victim"])
    fcntl.fcntl(read, 10, signal.SIGKILL)
    fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(write, b"x")
    return "sent"


def queue_a_signal(planted):
    """Queues a signal with forged contents.

    Stopped by: seccomp; pid namespace.
    """
    info = (ctypes.c_int * 32)(signal.SIGKILL, 0, -1)
    syscall("rt_sigqueueinfo", planted["victim"], signal.SIGKILL, info)
    return "killed"


def trace_another(planted):
    """Attaches to a process of the host as a debugger.

    Stopped by: seccomp; pid namespace; another user.
    """
    syscall("ptrace", 0x4206, planted["victim"], 0, 0)  # PTRACE_SEIZE
    return "seized"


def trace_the_parent(planted):
    """Attaches to what started it.

    Stopped by: seccomp; not dumpable.
    """
    syscall("ptrace", 0x4206, os.getppid(), 0, 0)
    return "seized"


def slow_down_another(planted):
    """Takes a process of the host the processor.

    Stopped by: seccomp; pid namespace; another user.
    """
    os.setpriority(os.PRIO_PROCESS, planted["victim"], 19)
    return "slowed"


def pin_another(planted):
    """Ties a process of the host to one core.

    Stopped by: seccomp; pid namespace; another user.
    """
    os.sched_setaffinity(planted["victim"], {0})
    return "tied"


def limit_another(planted):
    """Takes limits away from a process of the host.

    Stopped by: seccomp; pid namespace; another user.
    """
    resource.prlimit(planted["victim"], resource.RLIMIT_NOFILE, (3, 3))
    return "limited"


def realtime(planted):
    """Asks for a priority above all ordinary processes. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return "got it"


def higher_priority(planted):
    """Makes itself more important. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "got it"


def outlive_the_host(planted):
    """Takes back that it dies with its parent.

    Stopped by: seccomp (prctl).
    """
    syscall("prctl", 1, 0, 0, 0, 0)
    return "cleared"


def be_dumpable(planted):
    """Makes itself open to debuggers again.

    Stopped by: seccomp (prctl).
    """
    syscall("prctl", 4, 1, 0, 0, 0)
    return "changed"


def more_rights(planted):
    """Becomes root. Needs root, of course, or a mistake.

    Stopped by: seccomp; no capabilities.
    """
    os.setresuid(1234, 1234, 0) if os.geteuid() == 0 else os.setuid(0)
    return "changed"


def higher_limits(planted):
    """Raises its own limits, or makes room for that.

    Stopped by: seccomp (prlimit64).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft - 1, 64), hard))
    return "changed"


def dump_core(planted):
    """Crashes, to leave an image of its memory behind.

    Stopped by: RLIMIT_CORE.
    """
    os.chdir(planted["outside"])
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    return "allowed"


def change_root_process_name(planted):
    """Hides behind another name in the host's list of processes, together with its root.

    Stopped by: seccomp; no capabilities.
    """
    syscall("chroot", text("/"))
    return "changed"


def programs_without_end(planted):
    """May run one program, and starts it until nothing goes any more; all ignore signals and have their own sessions.

    Stopped by: RLIMIT_NPROC; pid namespace (nothing is left).
    Granted: a program.
    """
    for _ in range(40):
        subprocess.Popen(["/bin/sh", "-c", "trap '' TERM INT HUP; sleep 20 & sleep 20"], start_new_session=True)
    return "started"


def another_program(planted):
    """May run one program, and runs another.

    Stopped by: mount namespace; Landlock (EXECUTE).
    Granted: a program.
    """
    return subprocess.run(["/usr/bin/id"], capture_output=True, text=True, timeout=5).stdout


def daemon_of_a_program(planted):
    """May run one program, which leaves a process behind.

    Stopped by: pid namespace.
    Granted: a program.
    """
    subprocess.run(["/bin/sh", "-c", "(trap '' TERM; sleep 20) </dev/null >/dev/null 2>&1 &"], timeout=5, check=True)


def program_of_its_own(planted):
    """May run one program, and runs what it wrote itself.

    Stopped by: Landlock (EXECUTE); noexec.
    Granted: a program.
    """
    path = os.path.join(planted["workspace"], "own")
    with open(path, "w") as file:
        file.write("#!/bin/sh\nexit 0\n")
    os.chmod(path, 0o755)
    return subprocess.run([path], timeout=5).returncode == 0 or None


def program_by_the_loader(planted):
    """May run one program, and has the dynamic loader start what it wrote itself.

    Stopped by: noexec; Landlock (EXECUTE) does not look at what is mapped, so without a view it is refused as a whole.
    Granted: a program.
    """
    own = os.path.join(planted["workspace"], "own")
    with open("/bin/sh", "rb") as program, open(own, "wb") as file:
        file.write(program.read())
    loader = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}[os.uname().machine]
    return subprocess.run([loader, own, "-c", "exit 7"], timeout=5).returncode == 7 or None


def watch_the_work_of_another(planted):
    """Reads the clock of a process's CPU time, and has one wake it: how busy the host is, and with what, to the
    microsecond.

    Stopped by: the pid namespace; seccomp.
    """
    syscall("timer_create", (~planted["host"] << 3 | 2) & 0xFFFFFFFF, 0, ctypes.byref(ctypes.c_int()))
    return time.clock_gettime(~planted["host"] << 3 | 2)


def look_for_another(planted):
    """Asks of which group, session and core a process is, and so whether it is.

    Stopped by: the pid namespace; seccomp.
    """
    found = []
    for ask in (os.getpgid, os.getsid, os.sched_getaffinity, lambda pid: os.getpriority(os.PRIO_PROCESS, pid)):
        try:
            found.append(str(ask(planted["victim"])))
        except OSError:
            continue
    return found or None
