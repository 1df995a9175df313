"""The container tier: the same worker over standard input and output, in a container of a Docker Engine."""
