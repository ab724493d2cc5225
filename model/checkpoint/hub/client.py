"""The hub's own library, and its errors and the network's as sentences.

`huggingface_hub` (the extra `hub`; serving does not import it) knows the protocol, the layout of
the cache, tokens, mirrors and offline use: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EFBIG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from typing import Any
from urllib.parse import urlsplit

from model.errors import ModelError
from model.files import reason
from model.hub_cache import hub_cache

_OF_THE_DISK = {EACCES, EDQUOT, EFBIG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS}


def hub_library() -> Any:
    """Return the package `huggingface_hub`; `ModelError` says how to install it."""
    try:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError as error:
        raise ModelError(
            f"a model is pulled by {error.name}; install piBLOOM with its extra 'hub'"
            " (pip install -e '.[hub]')"
        ) from None
    with warnings.catch_warnings():  # it warns where a variable of its own asks for its bars
        warnings.simplefilter("ignore")
        disable_progress_bars()  # commands have one of their own
    return huggingface_hub


@contextmanager
def hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn the errors of the hub and of the network into a `ModelError` of one sentence."""
    _check_address()
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise ModelError(
            f"{name} is gated: accept its terms on its page of the hub, then set HF_TOKEN to a"
            " token of the account that did"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{name} has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"there is no model {name} on the hub, or it is private, and HF_TOKEN is not a token"
            " that may read it"
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        if is_offline():
            raise ModelError(f"{name} is not here, and HF_HUB_OFFLINE is set") from None
        raise ModelError(
            f"{name} is not here, and the hub cannot be reached: {_cause(error)}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        asked = "it asks to wait a while" if status == 429 else "try again later"
        raise ModelError(f"{name} was not pulled: the hub answered {status}; {asked}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise not_the_hub(name) from None
    except UnicodeEncodeError:  # its text is a part of the token
        raise ModelError(
            f"{name} was not pulled: HF_TOKEN, or the token that was saved, is not of ASCII alone"
        ) from None
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise ModelError(
                f"{name} was not pulled: {hub_cache()} cannot be written ({error.strerror}); set"
                " HF_HOME to a folder that can"
            ) from None
        raise ModelError(f"{name} was not pulled: {error.strerror or _cause(error)}") from None
    except Exception as error:
        if not is_network(error):
            raise
        raise ModelError(
            f"{name} was not pulled: the hub cannot be reached ({_cause(error)})"
        ) from None


def not_the_hub(name: str) -> ModelError:
    """Return the error of a model for which something else answered than the hub."""
    return ModelError(
        f"{name} was not pulled: what answered is not the hub; a network that asks for a log-in"
        " answers so, and so does a wrong HF_ENDPOINT"
    )


def is_offline() -> bool:
    """Whether the hub is not to be asked, as `huggingface_hub` reads HF_HUB_OFFLINE."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")


def _check_address() -> None:
    """Refuse an HF_ENDPOINT at which the library fails before it asks anything."""
    try:
        address = urlsplit(os.environ.get("HF_ENDPOINT", ""))
        usable = not address.netloc or bool(address.hostname and address.port != 0)
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise ModelError("HF_ENDPOINT is not an address such as https://hub.example")


def is_network(error: Exception) -> bool:
    """Whether an error comes from the HTTP client: a line that broke, or was never there."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _cause(error: BaseException) -> str:
    """Return the first sentence of the innermost error."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return (reason(error).strip() or type(error).__name__).splitlines()[0][:200]
