"""Routes: which handler answers a method and a path, and what is said where there is none."""

from collections.abc import Callable

from flask import Request, Response, g
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed
from werkzeug.exceptions import NotFound as WerkzeugNotFound
from werkzeug.routing import Map, Rule

from functions.errors import MethodNotAllowed, NotFound
from functions.http.quoting import shortened

Handler = Callable[..., Response]
Route = tuple[str, str, Handler]  # method, path, and what answers


class Routes:
    """A table of routes, called with each request."""

    def __init__(self, *table: Route) -> None:
        self.table = table
        rules = [Rule(path, methods=[method], endpoint=handler) for method, path, handler in table]
        self._map = Map(rules, strict_slashes=False, merge_slashes=False)

    def __call__(self, request: Request) -> Response:
        """Answer a request, or raise the `ApiError` that says why not."""
        if request.method == "OPTIONS" and request.environ.get("RAW_URI") == "*":
            methods = {method for method, _, _ in self.table} | {"HEAD", "OPTIONS"}
            return Response(status=204, headers={"Allow": ", ".join(sorted(methods))})
        adapter = self._map.bind("", path_info=request.path)
        if request.method == "OPTIONS" and (allowed := list(adapter.allowed_methods())):
            return Response(status=204, headers={"Allow": ", ".join(sorted([*allowed, "OPTIONS"]))})
        try:
            rule, found = adapter.match(method=request.method, return_rule=True)
        except WerkzeugNotFound:
            raise NotFound(self._not_found(request)) from None
        except WerkzeugMethodNotAllowed as error:
            allowed = sorted(error.valid_methods or ())
            raise MethodNotAllowed(request.method, shortened(request.path), allowed) from None
        g.route = rule.rule
        handler: Handler = rule.endpoint
        response: Response = handler(request, **found)
        return response

    def _not_found(self, request: Request) -> str:
        """Say that nothing has this path, and which path may be meant."""
        path = request.path.rstrip("/").lower()
        paths = {path for _, path, _ in self.table if len(path) > 1}
        # A base URL with /v1 twice, or without it.
        similar = [each for each in sorted(paths) if path and _ends_alike(path, each.rstrip("/"))]
        sentence = [f"there is nothing at {shortened(request.method)} {shortened(request.path)}"]
        if any(each.startswith("/v1/") for each in paths):
            sentence.append("the base URL of OpenAI's clients is this server's address with /v1")
        sentence.append("every route is in /openapi.json")
        if similar:
            sentence.append(f"is {similar[-1]} meant?")
        return "; ".join(sentence)


def _ends_alike(one: str, other: str) -> bool:
    return one.endswith(other) or other.endswith(one)
