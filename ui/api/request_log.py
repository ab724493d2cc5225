"""The log lines about requests that failed; nothing of what a request holds is written."""

import logging
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass
class RequestLog:
    """Logs each failure of a visitor's request; of a page's own requests, each kind once.

    Every page asks some things by itself every few seconds. While a function is away, these fail
    all the time; so the same failure is logged again only after an answer came in between.
    """

    # The kinds already logged, by function and path.
    _logged: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def failed(self, function: str, path: str, kind: str, request: str, *, repeated: bool) -> None:
        """Note that a request failed; `request` is the id under which the function logs it."""
        logged = self._logged.setdefault((function, path), set()) if repeated else set()
        if kind not in logged:
            log.warning("%s: %s, request %s", function, kind, request)
            logged.add(kind)

    def answered(self, function: str, path: str) -> None:
        """Note that a repeated request was answered."""
        if self._logged.pop((function, path), None):
            log.warning("%s: %s answers again", function, path)
