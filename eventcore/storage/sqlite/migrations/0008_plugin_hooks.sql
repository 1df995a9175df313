-- Version 8: functions of plugins, hooked to events by the operator.

-- Functions of plugins that the operator hooked to events (`plugins hook`).
CREATE TABLE plugin_hooks (
    tenant TEXT NOT NULL,
    plugin TEXT NOT NULL,
    event TEXT NOT NULL,
    function TEXT NOT NULL,
    PRIMARY KEY (tenant, plugin, event, function)
) STRICT, WITHOUT ROWID;
