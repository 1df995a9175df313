"""What is remembered for a tenant: kept, found by words or likeness, forgotten."""
