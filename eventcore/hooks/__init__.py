"""Hooks: questions put to handlers, whose answers come back. The caller waits."""
