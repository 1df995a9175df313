"""A pytest plugin for authors: fixtures `eventcore_home` and `eventcore`. Imports nothing heavy at collection."""

from __future__ import annotations
