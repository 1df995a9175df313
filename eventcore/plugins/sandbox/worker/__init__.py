"""The inside of a worker process: standard library and `eventcore.sdk` only."""
