"""What the files beside `tokenizer.json` say of a tokenizer, gathered as `transformers` does.

They are `tokenizer_config.json`, and in older folders `special_tokens_map.json` and
`added_tokens.json`; each file may change what another one says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.files import read_object
from model.text.added_tokens import AddedToken

_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# Classes for which `transformers` uses tokenizer.json as it is; others split in their own way.
_CLASSES = {
    *("BloomTokenizer", "PreTrainedTokenizer", "TokenizersBackend", "PythonBackend"),
    "LlamaTokenizer",  # a name only, where the tokenizer is a byte-level one
}
_FORMER_MAP, _FORMER_ADDED = "special_tokens_map.json", "added_tokens.json"


@dataclass(frozen=True)
class TokenizerSettings:
    """What the files beside `tokenizer.json` say."""

    to_add: list[AddedToken]
    special_tokens: dict[str, str]  # by name: bos_token, eos_token and others
    split_special_tokens: bool = False  # special tokens in a text are split like any text


def read_settings(folder: Path, tokenizer: Mapping[str, Any]) -> TokenizerSettings:
    """Gather what the other files add to a parsed `tokenizer.json`, which may be empty.

    `ModelError` names the file that cannot be used.
    """
    config = _optional(folder / "tokenizer_config.json")
    model = _optional(folder / "config.json")
    names = () if "added_tokens_decoder" in config else (_FORMER_MAP, _FORMER_ADDED)
    former = {name: _optional(folder / name) for name in names}
    path = folder / "tokenizer.json"
    try:
        own = [AddedToken.parse(token) for token in _listed(tokenizer, "added_tokens")]
        ids = [token["id"] for token in _listed(tokenizer, "added_tokens")]
        path = folder / "tokenizer_config.json"
        _check_kind(config, model)
        values = _renamed(config)
        if "added_tokens_decoder" in config:
            by_id = _decoder(config["added_tokens_decoder"])
            known = {token.content: token for token in by_id.values()}
        else:
            path = folder / _FORMER_MAP
            _merge_map(values, former[_FORMER_MAP])
            path = folder / _FORMER_ADDED
            by_id = _older(former[_FORMER_ADDED], values)
            known = {token.content: token for token in by_id.values()}
            by_id |= dict(zip(ids, own, strict=True))
            known |= {token.content: token for token in own}
        path = folder / "tokenizer_config.json"
        named, extra = _special(values, tokenizer, known)
        return TokenizerSettings(
            _to_add(own, [by_id[id_] for id_ in sorted(by_id)], named, extra),
            {name: _content(token) for name, token in named.items()},
            bool(config.get("split_special_tokens")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: it holds no tokens as expected ({error})"
        ) from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _optional(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}


def _listed(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    return found if isinstance(found, list) else []


def _check_kind(config: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuse settings that would make `transformers` split or join in another way."""
    name = config.get("tokenizer_class") or model.get("tokenizer_class")
    if name is not None and str(name).removesuffix("Fast") not in _CLASSES:
        raise ModelError(
            f"the tokenizer_class {name!r:.80} is not supported; a BLOOM's is BloomTokenizerFast"
            " or PreTrainedTokenizerFast"
        )
    files = config.get("fast_tokenizer_files")
    if files not in (None, [], ["tokenizer.json"]):
        raise ModelError("fast_tokenizer_files is not supported; tokenizer.json is read alone")
    for field_, why in (
        ("auto_map", "it names code of its own"),
        ("fix_mistral_regex", "it is for another model's tokenizer"),
        (
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
            "replies are shown as the tokens have them",
        ),
    ):
        if config.get(field_):
            raise ModelError(f"{field_} is not supported: {why}")


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with special tokens under their newer names.

    Tokens that have a name of their own, as `image_token`, are kept apart under "named".
    """
    values = dict(config)
    if "additional_special_tokens" in values and not values.get("extra_special_tokens"):
        values["extra_special_tokens"] = values.pop("additional_special_tokens")
    values["named"] = {
        name: values.pop(name)
        for name in list(values)
        if name.endswith("_token") and name not in _NAMED and isinstance(values[name], str)
    }
    if isinstance(values.get("extra_special_tokens"), dict):
        values["named"] |= values.pop("extra_special_tokens")
    return values


def _decoder(found: Any) -> dict[int, AddedToken]:
    if not isinstance(found, dict):
        raise ModelError("added_tokens_decoder is not a table of tokens by their ids")
    return {int(id_): AddedToken.parse(token) for id_, token in found.items()}


def _merge_map(values: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Add what the older `special_tokens_map.json` says to `values`, in place."""
    for name, value in found.items():
        if isinstance(value, dict) and name != "extra_special_tokens":
            value = AddedToken.parse(value, special=True)
        elif isinstance(value, list) and name == "extra_special_tokens":
            tokens = [
                AddedToken.parse(each, special=True) if isinstance(each, dict) else each
                for each in value
            ]
            first = values.get(name) or []
            known = {each for each in first if isinstance(each, str)}
            value = [*first, *(each for each in dict.fromkeys(tokens) if each not in known)]
        values[name] = value
    if isinstance(values.get("extra_special_tokens"), dict):
        values["named"] |= values.pop("extra_special_tokens")


def _older(found: Mapping[str, Any], values: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Read the older `added_tokens.json`: ids by content."""
    if not all(type(id_) is int for id_ in found.values()):
        raise ModelError("expected each token's id, a whole number")
    special = {_content(values[name]) for name in _NAMED if values.get(name)}
    special |= {_content(each) for each in values.get("extra_special_tokens") or []}
    return {
        id_: AddedToken(content, normalized=content not in special, special=content in special)
        for content, id_ in found.items()
    }


def _special(
    values: Mapping[str, Any], tokenizer: Mapping[str, Any], known: Mapping[str, AddedToken]
) -> tuple[dict[str, str | AddedToken], list[str | AddedToken]]:
    """Return the special tokens that have a name, and those that have none."""
    found = {name: _token(name, values[name]) for name in _NAMED if values.get(name) is not None}
    for name, token in found.items():
        found[name] = known.get(_content(token), token)
    padding = tokenizer.get("padding")
    if padding and "pad_token" not in values:
        found["pad_token"] = _token("pad_token", padding["pad_token"])
    further = {
        name: _typed(value)
        for name, value in values.items()
        if name.endswith("_token") and name not in _NAMED
    }
    named = {name: value for name, value in further.items() if isinstance(value, str | AddedToken)}
    named |= {name: _token(name, value) for name, value in values["named"].items()}
    extra = values.get("extra_special_tokens", values.get("additional_special_tokens")) or []
    if not isinstance(extra, list):
        raise ModelError("extra_special_tokens is neither a list of tokens nor a table of them")
    order = [name for name in _NAMED if name in found]
    every = {name: found[name] for name in order} | named
    return every, [_token("extra_special_tokens", each) for each in extra]


def _typed(value: Any) -> Any:
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return AddedToken.parse(value)
    return value


def _token(name: str, value: Any) -> str | AddedToken:
    found = _typed(value)
    if not isinstance(found, str | AddedToken):
        raise ModelError(f"{name} is neither a text nor a token of the type AddedToken")
    return found


def _content(token: str | AddedToken) -> str:
    return token.content if isinstance(token, AddedToken) else str(token)


def _to_add(
    own: list[AddedToken],
    by_id: list[AddedToken],
    named: Mapping[str, str | AddedToken],
    extra: list[str | AddedToken],
) -> list[AddedToken]:
    """Return the tokens to add to those of `tokenizer.json`, in order."""
    every: list[str | AddedToken] = list(by_id)
    contents = {token.content for token in (*own, *by_id)}
    every += [token for token in (*named.values(), *extra) if _content(token) not in contents]
    names = {_content(token) for token in named.values() if _content(token)}
    return [
        AddedToken(token, special=True)
        if isinstance(token, str)
        else replace(token, special=token.special or token.content in names)
        for token in every
    ]
