"""Workflows that other engines serve: the port, n8n's form of it, and the signed address under which answers come."""
