"""The process that workers are forked from. Standard library only."""
