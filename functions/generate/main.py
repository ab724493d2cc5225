"""The generation function: a prompt in, text out, whole or as a stream of events.

    functions-framework --source functions/generate/main.py --target generate
    python -m functions generate

The second serves it as the images do, with streams that end properly at a shutdown.
"""

import os

from flask import Request as HttpRequest
from flask import Response, current_app

from functions import errors
from functions.generate.metrics import GenerationMetrics
from functions.generate.native.routes import NativeRoutes
from functions.generate.ollama.routes import OllamaRoutes
from functions.generate.openai.routes import OpenAIRoutes
from functions.generate.responses.routes import ResponsesRoutes
from functions.http.middleware import install
from functions.http.probes import metrics_route, probes
from functions.http.replies import json_reply
from functions.http.routing import Routes
from functions.metrics import Registry
from functions.service import Service
from functions.settings import Settings
from model import load
from model.load import LoadedModel

settings = Settings.read(os.environ)
metrics = Registry()


def load_model() -> LoadedModel:
    """Load the model, and count what it does from then on."""
    model = load.load(settings.model, **settings.loading)
    model.scheduler.observer = generation_metrics
    return model


service = Service(load_model)
generation_metrics = GenerationMetrics(metrics, service)
install(current_app, settings, metrics)
current_app.extensions["pibloom"] = service


def check_ready() -> None:
    """Raise the error that says why no request would be answered now."""
    if not service.get().scheduler.healthy:
        raise errors.ApiError("the engine has ended, or hangs")


def is_alive() -> bool:
    """Whether the engine can still be hoped to come back."""
    model = service.peek()
    return model is None or service.state == "draining" or model.scheduler.healthy


def get_document(request: HttpRequest) -> Response:
    """Describe every route."""
    from functions.generate.document import document  # a start does without it

    return json_reply(document())


native = NativeRoutes(service, settings.deadline, most_waiting=settings.limits.most_at_once)
openai = OpenAIRoutes(service.get, settings.deadline)
responses = ResponsesRoutes(service.get, settings.deadline)
ollama = OllamaRoutes(service.get, service.peek, settings.deadline)
routes = Routes(
    ("GET", "/", native.root),
    ("POST", "/", native.generate),
    ("POST", "/chat/", native.chat),
    ("POST", "/warm", native.warm),
    ("POST", "/v1/completions", openai.completions),
    ("POST", "/v1/chat/completions", openai.chat),
    ("POST", "/v1/responses", responses.create),
    ("GET", "/v1/responses/<name>", responses.stored),
    ("DELETE", "/v1/responses/<name>", responses.stored),
    ("POST", "/v1/responses/<name>", responses.unknown),
    ("GET", "/v1/models", openai.models),
    ("GET", "/v1/models/<path:name>", openai.model),
    ("POST", "/api/chat", ollama.chat),
    ("POST", "/api/generate", ollama.generate),
    ("POST", "/api/show", ollama.show),
    ("GET", "/api/tags", ollama.tags),
    ("GET", "/api/ps", ollama.ps),
    ("GET", "/api/version", ollama.version),
    *probes(lambda: service.state, check_ready, is_alive),
    metrics_route(metrics),
    ("GET", "/openapi.json", get_document),
)


def generate(request: HttpRequest) -> Response:
    """Answer one HTTP request; the function's entry point."""
    service.start()
    return routes(request)
