"""Data and ports. No I/O, no clock reads, and nothing of ours is imported from here."""
