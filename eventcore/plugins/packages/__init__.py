"""Packages of plugins: archives and folders that are checked, moved in as a whole, and moved out again."""
