"""The command line. One file a command group; each is imported only when one of its commands is used."""

from eventcore.cli.root import main

__all__ = ["main"]
