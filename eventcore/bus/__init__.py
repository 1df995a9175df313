"""The event bus: facts, whose publisher does not wait for those who hear of them."""
