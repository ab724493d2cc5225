"""What the OpenAPI document says of each route of `generate`."""

from functions import openapi
from functions.generate.native import schemas as native
from functions.generate.ollama import schemas as ollama
from functions.generate.openai import schemas as openai
from functions.generate.responses import schemas as responses
from functions.openapi import Operation

OPERATIONS = (
    Operation(
        "POST",
        "/",
        "Generate",
        native.GenerateBody,
        native.Generated,
        generates=True,
        streams=openapi.EVENTS,
    ),
    Operation(
        "POST", "/chat/", "Answer one message", native.ChatBody, native.ChatAnswer, generates=True
    ),
    Operation(
        "POST",
        "/warm",
        "Wake up",
        native.WarmBody,
        native.Warmed,
        generates=True,
        optional_body=True,
    ),
    Operation(
        "POST",
        "/v1/completions",
        "Continue prompts, as OpenAI does",
        openai.CompletionBody,
        openai.Completion,
        generates=True,
        streams=openapi.EVENTS,
    ),
    Operation(
        "POST",
        "/v1/chat/completions",
        "Answer a conversation, as OpenAI does",
        openai.ChatCompletionBody,
        openai.ChatCompletion,
        generates=True,
        streams=openapi.EVENTS,
    ),
    Operation(
        "POST",
        "/v1/responses",
        "Answer a conversation, as OpenAI's newer route does",
        responses.ResponseBody,
        responses.ModelResponse,
        generates=True,
        streams=openapi.EVENTS,
    ),
    Operation(
        "POST",
        "/api/chat",
        "Answer a conversation, as Ollama does",
        ollama.OllamaChatBody,
        ollama.OllamaChatReply,
        generates=True,
        streams=openapi.LINES,
    ),
    Operation(
        "POST",
        "/api/generate",
        "Answer a prompt, as Ollama does",
        ollama.OllamaGenerateBody,
        ollama.OllamaGenerateReply,
        generates=True,
        streams=openapi.LINES,
    ),
    Operation(
        "POST",
        "/api/show",
        "The one model, as Ollama does",
        ollama.ShowBody,
        ollama.OllamaDescription,
        generates=True,
    ),
    Operation(
        "GET",
        "/api/tags",
        "The one model, as Ollama does",
        answer=ollama.OllamaModels,
        may_wait=True,
    ),
    Operation("GET", "/api/ps", "The one model, once it is loaded", answer=ollama.OllamaModels),
    Operation(
        "GET",
        "/api/version",
        "The release of Ollama that /api follows",
        answer=ollama.OllamaVersion,
    ),
    Operation("GET", "/v1/models", "The one model", answer=openai.ModelList, may_wait=True),
    Operation(
        "GET",
        "/v1/models/{name}",
        "The one model",
        answer=openai.ModelCard,
        may_wait=True,
        missing=True,
    ),
    Operation("GET", "/", "What is served", answer=native.Root),
    *openapi.COMMON,
)
