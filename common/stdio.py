"""Standard streams that can be used, whatever the process was started with."""

import os
import sys


def open_missing(*, discard: bool = False) -> None:
    """Put something in the place of each standard stream that is closed.

    The number of a closed one would go to the next file or socket that is opened. Writing to what
    takes its place fails, as it should; with `discard`, for libraries that would end at such a
    failure, it is ignored.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR if discard else mode)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115
