"""What the OpenAPI document says of each route of `generate`."""

from typing import Any

from functions import openapi
from functions.generate.native import schemas as native
from functions.generate.ollama import schemas as ollama
from functions.generate.openai import schemas as openai
from functions.generate.responses import schemas as responses
from functions.openapi import EVENTS, LINES, Operation, Stream

_NATIVE = (
    Operation("GET", "/", "getRoot", "What is served", answer=native.Root),
    Operation(
        "POST",
        "/",
        "generate",
        "Continue a prompt, or answer messages",
        native.GenerateBody,
        native.Generated,
        generates=True,
        stream=Stream(
            EVENTS,
            (
                native.LoadingStatus,
                native.QueuedStatus,
                native.PrefillStatus,
                native.GeneratingStatus,
                native.TokenEvent,
                native.Generated,
            ),
            "Events by name: `status` tells the state, `token` has a piece of the text, and the"
            " last is `done` with the whole reply, or `error`.",
        ),
    ),
    Operation(
        "POST",
        "/chat/",
        "answerMessage",
        "Answer one message, as the older stack did",
        native.ChatBody,
        native.ChatAnswer,
        generates=True,
    ),
    Operation(
        "POST",
        "/warm",
        "warm",
        "Wake up, and read a prompt ahead",
        native.WarmBody,
        native.Warmed,
        generates=True,
        optional_body=True,
    ),
)
_OPENAI = (
    Operation(
        "POST",
        "/v1/completions",
        "createCompletion",
        "Continue prompts, as OpenAI does",
        openai.CompletionBody,
        openai.Completion,
        generates=True,
        stream=Stream(
            EVENTS,
            (openai.CompletionChunk,),
            "Each event has a chunk, or an error; the data of the last is [DONE].",
            ending="[DONE]",
        ),
    ),
    Operation(
        "POST",
        "/v1/chat/completions",
        "createChatCompletion",
        "Answer a conversation, as OpenAI does",
        openai.ChatCompletionBody,
        openai.ChatCompletion,
        generates=True,
        stream=Stream(
            EVENTS,
            (openai.ChatCompletionChunk,),
            "Each event has a chunk, or an error; the data of the last is [DONE].",
            ending="[DONE]",
        ),
    ),
    Operation(
        "GET",
        "/v1/models",
        "listModels",
        "The one model, as OpenAI does",
        answer=openai.ModelList,
        may_wait=True,
    ),
    Operation(
        "GET",
        "/v1/models/{name}",
        "getModel",
        "The one model, as OpenAI does",
        answer=openai.ModelCard,
        may_wait=True,
        missing=True,
    ),
)
_RESPONSES = (
    Operation(
        "POST",
        "/v1/responses",
        "createResponse",
        "Answer a conversation, as OpenAI's newer route does",
        responses.ResponseBody,
        responses.ModelResponse,
        generates=True,
        stream=Stream(
            EVENTS,
            responses.EVENTS,
            "Each event is named by the type in its data; the last is response.completed,"
            " response.incomplete or response.failed.",
            has_errors=False,
        ),
    ),
    Operation("GET", "/v1/responses/{name}", "getResponse", "Responses are not kept", missing=True),
    Operation(
        "DELETE", "/v1/responses/{name}", "deleteResponse", "Responses are not kept", missing=True
    ),
    Operation(
        "POST",
        "/v1/responses/{name}",
        "workOnResponse",
        "Tokens are counted by the function tokenize, and nothing is compacted",
        missing=True,
    ),
)
_OLLAMA = (
    Operation(
        "POST",
        "/api/chat",
        "ollamaChat",
        "Answer a conversation, as Ollama does",
        ollama.OllamaChatBody,
        ollama.OllamaChatReply,
        generates=True,
        stream=Stream(
            LINES, (ollama.OllamaChatReply,), "Each line is a reply, or an error at the end."
        ),
    ),
    Operation(
        "POST",
        "/api/generate",
        "ollamaGenerate",
        "Answer a prompt, as Ollama does",
        ollama.OllamaGenerateBody,
        ollama.OllamaGenerateReply,
        generates=True,
        stream=Stream(
            LINES, (ollama.OllamaGenerateReply,), "Each line is a reply, or an error at the end."
        ),
    ),
    Operation(
        "POST",
        "/api/show",
        "ollamaShow",
        "What the one model is, as Ollama does",
        ollama.ShowBody,
        ollama.OllamaDescription,
        generates=True,
    ),
    Operation(
        "GET",
        "/api/tags",
        "ollamaTags",
        "The one model, as Ollama does",
        answer=ollama.OllamaModels,
        may_wait=True,
    ),
    Operation(
        "GET",
        "/api/ps",
        "ollamaPs",
        "The one model, once it is loaded",
        answer=ollama.OllamaModels,
    ),
    Operation(
        "GET",
        "/api/version",
        "ollamaVersion",
        "The release of Ollama that /api follows",
        answer=ollama.OllamaVersion,
    ),
)
OPERATIONS = (*_NATIVE, *_OPENAI, *_RESPONSES, *_OLLAMA, *openapi.COMMON)


def document() -> dict[str, Any]:
    """Return the document."""
    return openapi.document("generate", OPERATIONS)
