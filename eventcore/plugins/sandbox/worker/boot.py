"""The script that a worker process runs: `python -I -S boot.py CHANNEL_FD HOST_PID PACKAGE_ROOT`."""

import sys


def main() -> None:
    # With -I -S, sys.path holds the standard library alone. Our own package comes behind it, so that no neighbour of
    # it in the same folder can stand in for a standard module.
    sys.path.append(sys.argv[3])
    from eventcore.plugins.sandbox.worker.main import serve  # after sys.path is set, and not before

    serve(int(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
