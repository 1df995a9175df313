"""The composition root: chooses the adapters, wires the rooms together, and decides nothing else."""

from eventcore.app.blocking import SyncCore
from eventcore.app.core import EventCore

__all__ = ["EventCore", "SyncCore"]
