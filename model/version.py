"""The version of piBLOOM that runs."""

from functools import cache


@cache
def version() -> str:
    """Return the installed version, or "0" in a folder that was never installed.

    It is looked up when it is first asked for: reading a package's metadata takes a function longer
    than most of its imports do.
    """
    from importlib import metadata

    try:
        return metadata.version("pibloom")
    except metadata.PackageNotFoundError:
        return "0"
