"""The demo model's text: the templates of `corpus/*.toml`, expanded without end from a seed.

A document is a conversation in the model's chat format, or a story or paragraph on its own. The
templates' format is described in `corpus/README.md`. A hash splits the exchanges into those that
training sees and those that only the held-out loss sees, so that no held-out answer was trained on
in the same words.
"""

import hashlib
import math
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ 'Assistant: ' ~ message.content ~ '</s>\n' if message.role == 'assistant'"
    " else 'User: ' ~ message.content ~ '\n' }}"
    "{% endfor %}Assistant:"
)
END = "</s>"
LANGUAGE_WEIGHTS = {"en": 8, "ar": 2, "zh": 2, "hi": 2}
# Shares of the exchanges, for learning to talk and then for learning by heart.
BROAD = {"intent": 46, "fact": 16, "dialog": 9, "story": 12, "sum": 9, "unknown": 8}
FACTUAL = {"intent": 24, "fact": 34, "dialog": 6, "story": 6, "sum": 24, "unknown": 6}
HELD_OUT_PERCENT = 2
LARGEST_SUMMAND, LARGEST_FACTOR = 20, 10

Exchange = list[str]  # what the user says, what the model says, and so on in turn

_SLOT = re.compile(r"\{([a-z_]*)(\d*)\}")
_WORD = re.compile(r"[^\W\d_]{4,}")
_SYLLABLES = [
    "ba",
    "be",
    "bi",
    "bo",
    "bu",
    "da",
    "de",
    "di",
    "do",
    "du",
    "fa",
    "fe",
    "fi",
    "ga",
    "go",
    "gu",
    "ka",
    "ke",
    "ki",
    "ko",
    "la",
    "le",
    "li",
    "lo",
    "lu",
    "ma",
    "me",
    "mi",
    "mo",
    "mu",
    "na",
    "ne",
    "ni",
    "no",
    "pa",
    "pe",
    "pi",
    "po",
    "ra",
    "re",
    "ri",
    "ro",
    "ru",
    "sa",
    "se",
    "si",
    "so",
    "ta",
    "te",
    "ti",
    "to",
    "va",
    "ve",
    "vi",
    "vo",
    "za",
    "zo",
    "sha",
    "cha",
    "tri",
    "pla",
    "gre",
    "blo",
    "stu",
    "qua",
    "fle",
    "dra",
    "x",
    "y",
    "th",
    "ck",
    "nd",
    "st",
    "ng",
    "rt",
]


@dataclass(frozen=True)
class Language:
    """The templates of one language, ready to be drawn from."""

    code: str
    slots: Mapping[str, Sequence[str]]
    blocks: Sequence[tuple[str, Mapping[str, Any]]]  # (kind, block)
    weights: Sequence[float]  # of the blocks
    stories: Sequence[Mapping[str, Any]]
    texts: Sequence[str]
    words: Sequence[str]

    @classmethod
    def open(cls, path: Path, kinds: Mapping[str, int] = BROAD) -> "Language":
        """Read one template file; `tomllib.TOMLDecodeError` when it is not TOML."""
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        blocks, weights = [], []
        for kind, share in kinds.items():
            # A kind's share does not grow with its blocks; a block's grows with its size.
            masses = [_mass(kind, block) for block in data.get(kind, [])]
            blocks += [(kind, block) for block in data.get(kind, [])]
            weights += [share * mass / sum(masses) for mass in masses]
        slots = data["slots"]
        return cls(
            code=path.stem,
            slots=slots,
            blocks=blocks,
            weights=weights,
            stories=data.get("story", []),
            texts=[text["body"] for text in data.get("text", [])],
            words=_answers_only(data),
        )

    def exchange(self, rng: random.Random) -> Exchange:
        """Draw a question and its answer, or a dialog of several turns."""
        kind, block = rng.choices(self.blocks, self.weights)[0]
        given: dict[str, str] = {}
        match kind:
            case "dialog":
                turns = [rng.choice(turn) for turn in block["turns"]]
            case "story":
                turns = [rng.choice(block["ask"]), self._story(block, rng)]
            case _:
                turns = [rng.choice(block["ask"]), rng.choice(block["say"])]
        match kind:
            case "fact":
                given = {
                    str(column): str(value)
                    for column, value in enumerate(rng.choice(block["rows"]))
                }
            case "sum":
                given = dict(zip("abc", map(str, _sum(block["op"], rng)), strict=True))
            case "unknown":
                heard_of = rng.random() < 0.35
                given = {"word": rng.choice(self.words) if heard_of else _unheard_of(rng)}
        return self._fill(turns, given, rng)

    def prose(self, rng: random.Random) -> str:
        """Draw a paragraph or a story that belongs to no conversation."""
        if self.stories and rng.random() < 0.5:
            text = self._story(rng.choice(self.stories), rng)
        else:
            text = rng.choice(self.texts)
        return self._fill([text], {}, rng)[0]

    def _story(self, block: Mapping[str, Any], rng: random.Random) -> str:
        return ("" if self.code == "zh" else " ").join(map(rng.choice, block["sentences"]))

    def _fill(self, turns: Exchange, given: dict[str, str], rng: random.Random) -> Exchange:
        """Put a value into each slot: the same for the same name, another for another number."""
        values = dict(given)
        taken: dict[str, set[str]] = {}
        for name, number in (slot for turn in turns for slot in _SLOT.findall(turn)):
            if name + number not in values:
                used = taken.setdefault(name, set())
                value = rng.choice([value for value in self.slots[name] if value not in used])
                used.add(value)
                values[name + number] = value
        return [_SLOT.sub(lambda slot: values[slot[1] + slot[2]], turn) for turn in turns]


def _answers_only(data: Mapping[str, Any]) -> list[str]:
    """List words that no question or table holds, so that "I do not know it" is never wrong."""
    asked, said = [], [text["body"] for text in data.get("text", [])]
    for kind in BROAD:
        for block in data.get(kind, []):
            asked += block.get("ask", []) + [
                line for turn in block.get("turns", []) for line in turn
            ]
            said += block.get("say", []) + [
                line for part in block.get("sentences", []) for line in part
            ]
            asked += [str(cell) for row in block.get("rows", []) for cell in row]
    asked += [value for values in data["slots"].values() for value in values]
    known = {word.lower() for word in _WORD.findall(" ".join(asked))}
    heard = {word.lower() for word in _WORD.findall(" ".join(said))}
    return sorted(heard - known)


def _mass(kind: str, block: Mapping[str, Any]) -> float:
    if kind == "fact":
        return math.sqrt(len(block["rows"]))
    weight: float = block.get("weight", 1)
    return weight


def _sum(operator: str, rng: random.Random) -> tuple[int, int, int]:
    """Draw (a, b, c) with c = a operator b, none negative, no remainder."""
    big, small = LARGEST_SUMMAND, LARGEST_FACTOR
    match operator:
        case "+":
            a, b = rng.randint(0, big), rng.randint(0, big)
            return a, b, a + b
        case "-":
            a, b = sorted((rng.randint(0, big), rng.randint(0, big)), reverse=True)
            return a, b, a - b
        case "*":
            a, b = rng.randint(0, small), rng.randint(0, small)
            return a, b, a * b
        case "/":
            b, c = rng.randint(1, small), rng.randint(0, small)
            return b * c, b, c
    raise ValueError(f"a sum's op is one of + - * /, not {operator!r}")


def _unheard_of(rng: random.Random) -> str:
    """Make up a word, so that the model learns to copy one instead of to remember it."""
    word = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4)))
    return word.capitalize() if rng.random() < 0.4 else word


def _as_typed(text: str, rng: random.Random) -> str:
    """Write a question as people do: in lower case, without a full stop, with a slip."""
    if rng.random() < 0.25:
        text = text.lower()
    if rng.random() < 0.3:
        text = text.rstrip("?!.？。！؟।")
    if rng.random() < 0.06 and len(text) > 8:
        at = rng.randrange(1, len(text) - 2)
        swapped = text[at + 1] + text[at] + text[at + 2 :]
        text = text[:at] + (swapped if rng.random() < 0.5 else text[at + 1 :])
    return text


def languages(kinds: Mapping[str, int] = BROAD) -> list[Language]:
    """Open every language's templates; `kinds` says how often each kind of block is drawn."""
    return [Language.open(CORPUS / f"{code}.toml", kinds) for code in LANGUAGE_WEIGHTS]


def documents(spoken: Sequence[Language], seed: int, *, held_out: bool) -> Iterator[str]:
    """Yield documents without end; the same seed yields the same ones."""
    rng = random.Random(seed)
    weights = [LANGUAGE_WEIGHTS[language.code] for language in spoken]
    while True:
        language = rng.choices(spoken, weights)[0]
        if rng.random() < 0.1:
            text = language.prose(rng)
            if _is_held_out([text]) == held_out:
                yield text + END
            continue
        exchanges: list[Exchange] = []
        wanted = rng.choices((1, 2, 3, 4, 6), (40, 25, 17, 12, 6))[0]
        while len(exchanges) < wanted:
            exchange = language.exchange(rng)
            if _is_held_out(exchange) == held_out:
                exchanges.append(exchange)
        yield _conversation(exchanges, rng)


def _conversation(exchanges: list[Exchange], rng: random.Random) -> str:
    turns = [turn for exchange in exchanges for turn in exchange]
    text = ""
    for user, model in zip(turns[::2], turns[1::2], strict=True):
        text += f"User: {_as_typed(user, rng)}\nAssistant: {model}{END}\n"
    return text.removesuffix("\n")


def _is_held_out(exchange: Exchange) -> bool:
    digest = hashlib.sha256("\0".join(exchange).encode()).digest()
    return digest[0] * 256 + digest[1] < HELD_OUT_PERCENT * 65536 // 100
