"""The home on disk: settings, layout, discovery, catalogue and the owner lock."""
