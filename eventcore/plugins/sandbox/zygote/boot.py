"""The script that a zygote runs: `python -I -S boot.py CONTROL_FD HOST_PID PACKAGE_ROOT FOLDER REDUCED`."""

import sys


def main() -> None:
    # As for a worker: behind the standard library, so that no neighbour of the package can stand in for a module of it.
    sys.path.append(sys.argv[3])
    from eventcore.plugins.sandbox.zygote.main import serve  # after sys.path is set, and not before

    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4], sys.argv[5])


if __name__ == "__main__":
    main()
