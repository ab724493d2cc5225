"""What the chat takes notice of in its surroundings: its own variables, and the system's.

NiceGUI, uvicorn, FastAPI, watchfiles and others read dozens more, most of which another program may
have been given. So what is kept is listed here, and the rest is removed before they are imported.
"""

import contextlib
import os
import sys

KEPT = frozenset(
    {
        "HOST",
        "PORT",
        # The system's.
        *("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"),
        "GLIBC_TUNABLES",
        # Python's, less those that are for debugging.
        *("PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONIOENCODING"),
        *("PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED", "PYTHONUTF8"),
    }
)
FAMILIES = ("PIBLOOM_", "LC_", "LD_", "MALLOC_", "XDG_")


def narrow() -> None:
    """Remove every other variable from this process; its children do not see them either."""
    for name in list(os.environ):
        if name not in KEPT and not name.startswith(FAMILIES):
            with contextlib.suppress(OSError):  # a name that no shell could have given
                del os.environ[name]


def open_streams() -> None:
    """Put something in the place of each standard stream that is closed.

    The number of a closed one would go to the next socket, and logging needs a stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115
