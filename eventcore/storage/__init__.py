"""Where everything is kept: the backends of the port `Store`. Each passes `eventcore.testing.store_checks`."""
