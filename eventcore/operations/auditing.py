"""Who did what, written down beside what was done."""

from __future__ import annotations

from eventcore.engine import Engine
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.records import Audit, Batch


async def audit(engine: Engine, action: str, target: str) -> None:
    """An audit entry of the operator's."""
    context = engine.bus.context()
    number = f"{action}-{engine.clock.now():.6f}"
    row = Audit(number, engine.tenant, engine.clock.now(), context.actor, action, target)
    try:
        await engine.store.commit(Batch(audit=[row]))
    except EventCoreError:
        # What was asked for is done; the next command will say that the store cannot write.
        return
