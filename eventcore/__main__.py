"""`python -m eventcore` is the command `eventcore`."""

from eventcore.cli import main

if __name__ == "__main__":
    main()
