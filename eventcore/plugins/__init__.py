"""The plugin host: manifests, permissions, sandbox, lifecycle and the router."""
