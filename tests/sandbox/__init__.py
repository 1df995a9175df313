"""The sandbox on this machine's kernel."""
