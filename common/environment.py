"""Which environment variables a process uses: its own and the system's.

The libraries that serve read dozens more, most of which may have been set for another program:
gunicorn WEB_CONCURRENCY and SENDFILE, functions-framework FUNCTION_SIGNATURE_TYPE and ENTRY_POINT,
NiceGUI, uvicorn, watchfiles, Flask, OpenTelemetry and every HTTP client theirs. So what is kept is
listed here, and the rest is removed before those libraries are imported.
"""

import contextlib
import os

from common.settings import PREFIX

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
FAMILIES = (PREFIX, "LC_", "LD_", "MALLOC_", "XDG_")  # how the names of others begin
# Of the reference engine: torch, transformers, and the libraries that these use.
ENGINE_FAMILIES = (
    *("CUBLAS_", "CUDA_", "CUDNN_", "NVIDIA_", "GOMP_", "KMP_", "MKL_", "OMP_", "OPENBLAS_"),
    *("HF_", "PYTORCH_", "TORCH", "TRANSFORMERS_"),
)


def is_kept(name: str, families: tuple[str, ...] = ()) -> bool:
    """Whether a variable is piBLOOM's, the system's, or of one of further families."""
    return name in KEPT or name.startswith(FAMILIES + families)


def remove_others(families: tuple[str, ...] = ()) -> None:
    """Remove every other variable from this process; its children do not see them either."""
    for name in list(os.environ):
        if not is_kept(name, families):
            with contextlib.suppress(OSError):  # a name that no shell could have given
                del os.environ[name]
