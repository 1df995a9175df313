"""What the host does for plugins outside of their sandboxes: requests over HTTP, programs, files handed over."""
