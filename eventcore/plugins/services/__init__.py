"""What plugin code may ask of its host: a module a service, each with a `table()` of the names that workers send."""

from eventcore.plugins.host_api import Service
from eventcore.plugins.services import calling, events, logs, memory, workflows

__all__ = ["standard"]


def standard() -> dict[str, Service]:
    """The services that need nothing but the bus, the store and the engine."""
    return {**logs.table(), **events.table(), **memory.table(), **workflows.table(), **calling.table()}
