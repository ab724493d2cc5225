"""What every request of a function goes through, whatever its path, one concern a module."""

from flask import Flask, Response, request

from functions import process
from functions.http.middleware import compression, request_ids
from functions.http.middleware.access_log import AccessLog
from functions.http.middleware.cors import Cors
from functions.http.middleware.keys import Keys
from functions.http.middleware.uploads import Uploads, release
from functions.http.replies import as_api_error
from functions.metrics import Registry
from functions.settings import Settings, keys_of, origins_of


def install(app: Flask, settings: Settings, metrics: Registry) -> None:
    """Have every request of an app go through its middleware."""
    process.register(metrics)
    access_log = AccessLog(metrics)
    app.extensions["pibloom.answered"] = access_log.answered  # the server counts what is not HTTP
    cors = Cors(origins_of(settings))
    keys = Keys(keys_of(settings), open_metrics=bool(settings.open_metrics))
    uploads = Uploads(settings.max_body)

    @app.before_request
    def before() -> Response | None:
        access_log.start()
        request_ids.assign(request)
        if cors.is_preflight(request):
            # It carries no key. Streamed, so that a body stays unread, as in `ApiError.unread`.
            return Response(iter(()), status=204)
        keys.check(request)
        uploads.receive(request)
        return None

    @app.after_request
    def after(response: Response) -> Response:
        release(at_end_of=response)
        compression.compress(request, response)
        _set_common_headers(response)
        request_ids.add_headers(response)
        cors.add_headers(request, response)
        access_log.write_at_end(request, response)
        return response

    app.register_error_handler(Exception, lambda error: as_api_error(error).response(request.path))
    # "//" is simply another path; Flask would redirect it, in HTML.
    app.url_map.merge_slashes = app.url_map.redirect_defaults = False


def _set_common_headers(response: Response) -> None:
    if response.status_code == 204:
        response.headers.pop("Content-Type", None)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
