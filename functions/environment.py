"""Which environment variables a process takes notice of: its own and the system's.

The libraries that serve read dozens more, most of which another program may have been given:
gunicorn WEB_CONCURRENCY and SENDFILE, functions-framework FUNCTION_SIGNATURE_TYPE and ENTRY_POINT,
watchfiles, Flask, OpenTelemetry and every client of HTTP theirs. So what is kept is listed here,
and the rest is removed before those libraries are imported.
"""

import contextlib
import os

from functions.settings import PREFIX

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
FAMILIES = (
    PREFIX,
    *("LC_", "LD_", "MALLOC_", "XDG_"),
    # Of the reference engine: torch, transformers, and the libraries below them.
    *("CUBLAS_", "CUDA_", "CUDNN_", "NVIDIA_", "GOMP_", "KMP_", "MKL_", "OMP_", "OPENBLAS_"),
    *("HF_", "PYTORCH_", "TORCH", "TRANSFORMERS_"),
)


def is_kept(name: str) -> bool:
    """Whether a variable is piBLOOM's own or the system's."""
    return name in KEPT or name.startswith(FAMILIES)


def narrow() -> None:
    """Remove every other variable from this process; its children do not see them either."""
    for name in list(os.environ):
        if not is_kept(name):
            with contextlib.suppress(OSError):  # a name that no shell could have given
                del os.environ[name]
