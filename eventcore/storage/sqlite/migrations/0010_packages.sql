-- Version 10: installed plugins, and settings of plugins that were set at run time.

CREATE TABLE packages (
    tenant TEXT NOT NULL,
    plugin TEXT NOT NULL,
    state TEXT NOT NULL,
    operation TEXT NOT NULL,
    version TEXT NOT NULL,
    folder TEXT NOT NULL,
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (tenant, plugin)
) STRICT, WITHOUT ROWID;

CREATE TABLE plugin_settings (
    tenant TEXT NOT NULL,
    plugin TEXT NOT NULL,
    key TEXT NOT NULL,
    raw BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (tenant, plugin, key)
) STRICT, WITHOUT ROWID;
