"""The command `pibloom`."""
