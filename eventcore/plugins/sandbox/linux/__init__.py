"""The kernel's means, spoken to directly: numbers, structures, calls. Standard library only; workers use it too."""
