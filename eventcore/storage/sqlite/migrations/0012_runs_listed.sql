-- Version 12: runs of a tenant, newest first, and those that ended in one way, however many there are.

CREATE INDEX runs_by_tenant ON runs (tenant, id);
CREATE INDEX runs_ended ON runs (tenant, status, id) WHERE live = 0;
