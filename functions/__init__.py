"""piBLOOM's HTTP functions, and what they share."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pibloom")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0"
