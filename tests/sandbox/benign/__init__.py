"""Ordinary plugins, as people write them. Each file is one; its `run` returns what `EXPECTED` says."""
