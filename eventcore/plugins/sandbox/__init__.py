"""Plugin code in a process of its own. Import nothing here: the worker passes through this package with `-S`."""
