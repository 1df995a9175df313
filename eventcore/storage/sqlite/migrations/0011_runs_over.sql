-- Version 11: finished runs by when they ended, for their retention.

CREATE INDEX runs_over ON runs (updated) WHERE live = 0;
