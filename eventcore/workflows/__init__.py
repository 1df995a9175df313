"""The durable workflow engine: definitions, a pure reducer, and a runner that commits what the reducer decides."""
