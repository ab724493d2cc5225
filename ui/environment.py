"""Which environment variables the chat takes notice of: its own and the system's.

NiceGUI, uvicorn, FastAPI, watchfiles and others read dozens more, most of which another program may
have been given. So what is kept is listed here, and the rest is removed before they are imported.
"""

import contextlib
import os

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
