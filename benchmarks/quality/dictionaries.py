"""Parsers of what the instruction pairs are made of: dictionaries, and dialogues.

Pure functions of text, one per format. A pair is a prompt and its response.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "Pair",
    "chat_pairs",
    "dictd_entries",
    "foldoc_pairs",
    "freedict_pairs",
    "satire_pairs",
    "wordnet_pairs",
]

Pair = tuple[str, str]

_DIGITS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_PARTS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}
_MARKED = re.compile(r"[{}]|<[^>]*>|__")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“(])")
# Of Jargon File entries: how it is said, and which part of speech it is.
_SPOKEN = re.compile(r"^\s*(/.*/)?,?\s*([a-z.&, ]+\.)?$")


def wordnet_pairs(lines: Iterable[str]) -> dict[str, list[Pair]]:
    """Returns pairs by domain, of the lines of WordNet's ``data.*`` files.

    ``define`` (a word and its gloss), ``usage`` (and an example), ``synonym`` (and the
    next word of its set), ``category`` (and what it is a kind of). The format is in
    WordNet's manual page wndb(5WN).
    """
    pairs: dict[str, list[Pair]] = {}
    first_words: dict[str, str] = {}
    kinds: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("  ") or " | " not in line:  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        parts = fields.split()
        count = int(parts[3], 16)
        words = [_plain_word(word) for word in parts[4 : 4 + 2 * count : 2]]
        word, part = words[0], _PARTS[parts[2]]
        first_words[part[0] + parts[0]] = word
        definition, examples = _gloss(gloss)
        if definition:
            pairs.setdefault("define", []).append((f"define {part} {word}", definition))
        if examples:
            pairs.setdefault("usage", []).append((f"use {part} {word}", examples[0]))
        if count > 1:
            pairs.setdefault("synonym", []).append((f"synonym of {word}", words[1]))
        above = _pointed_at(parts[4 + 2 * count :], "@")
        if above is not None:
            kinds.append((word, part[0] + above))
    for word, above in kinds:
        if above in first_words:
            pair = (f"what kind of thing is {word}", first_words[above])
            pairs.setdefault("category", []).append(pair)
    return pairs


def _plain_word(word: str) -> str:
    return re.sub(r"\((a|p|ip)\)$", "", word).replace("_", " ")


def _gloss(gloss: str) -> tuple[str, list[str]]:
    """Returns a gloss's definition and its quoted examples."""
    examples = re.findall(r'"([^"]+)"', gloss)
    definition = gloss.split('; "')[0].strip()
    return "" if definition.startswith('"') else definition, examples


def _pointed_at(parts: list[str], symbol: str) -> str | None:
    """Returns the offset that the first pointer of a kind is to."""
    pointers = parts[1 : 1 + 4 * int(parts[0])]
    for at in range(0, len(pointers), 4):
        if pointers[at] == symbol:
            return pointers[at + 1]
    return None


def dictd_entries(index: str, text: bytes) -> Iterator[tuple[str, str]]:
    """Yields headwords and entries of a dictionary in the format of dictd(8).

    Args:
        index: Lines of headword, offset and size, the last two in base 64.
        text: What they point into, unpacked.
    """
    for line in index.splitlines():
        headword, offset, size = line.split("\t")[:3]
        if headword.startswith("00-database"):
            continue
        start = _number(offset)
        yield headword, text[start : start + _number(size)].decode(errors="replace")


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = 64 * value + _DIGITS.index(digit)
    return value


def foldoc_pairs(
    entries: Iterable[tuple[str, str]], prompt: str, limit: int
) -> Iterator[Pair]:
    """Yields what something is, as far as it goes in whole sentences.

    For dictionaries (FOLDOC, the Jargon File) whose entries are a line with the word as
    it is written, perhaps one with its pronunciation, an empty one and paragraphs.

    Args:
        entries: Headwords and texts.
        prompt: What comes before the word.
        limit: Characters of the response at most.
    """
    for _, text in entries:
        lines = text.strip("\n").split("\n")
        body = lines[1:]
        if body and _SPOKEN.match(body[0]):
            body = body[1:]
        paragraph = "\n".join(body).strip("\n").split("\n\n")[0]
        response = _sentences(_MARKED.sub("", paragraph), limit)
        if response:
            yield f"{prompt} {lines[0].strip()}", response


def satire_pairs(
    entries: Iterable[tuple[str, str]], prompt: str, limit: int
) -> Iterator[Pair]:
    """Yields entries of The Devil's Dictionary: ``WORD, n.  Text ...``."""
    for headword, text in entries:
        found = re.match(r"\s*[A-Z' -]+,[^.]*\.(?:[a-z]+\.)*\s+(.*)", text, re.DOTALL)
        if found:
            response = _sentences(found[1].split("\n\n")[0], limit)
            if response:
                yield f"{prompt} {headword}", response


def _sentences(paragraph: str, limit: int) -> str:
    """Returns as many whole sentences as fit."""
    taken = ""
    for sentence in _SENTENCE.split(" ".join(paragraph.split())):
        longer = f"{taken} {sentence}".strip()
        if len(longer) > limit:
            break
        taken = longer
    return taken


def freedict_pairs(entries: Iterable[tuple[str, str]], prompt: str) -> Iterator[Pair]:
    """Yields a word and its first translation."""
    for headword, text in entries:
        lines = text.strip("\n").split("\n")
        if len(lines) > 1:
            response = re.sub(r"^1\. ", "", lines[1]).split(",")[0].strip()
            if response:
                yield f"{prompt} {headword}", response


def chat_pairs(files: Mapping[str, str]) -> Iterator[Pair]:
    """Yields what is said and what is answered, of chatterbot-corpus's YAML files.

    Only the part of YAML that they are written in: a list of lists of texts, which may
    go on in the next lines. Texts in quotes lose them; blocks (``|``) are left out,
    with whatever they answer.
    """
    for text in files.values():
        for turns in _conversations(text):
            for said, answered in itertools.pairwise(turns):
                if said and answered and "|" not in (said[0], answered[0]):
                    yield said, answered


def _conversations(text: str) -> Iterator[list[str]]:
    turns: list[list[str]] = []
    is_in_list = False
    for line in text.splitlines():
        if not line.startswith((" ", "-")):
            is_in_list = line.startswith("conversations:")
            continue
        if not is_in_list:
            continue
        found = re.match(r"(\s*- - |\s+- )(.*)", line)
        if found is None:
            if turns:
                turns[-1].append(line.strip())
        elif found[1].endswith("- - "):
            if turns:
                yield [_unquoted(turn) for turn in turns]
            turns = [[found[2]]]
        else:
            turns.append([found[2]])
    if turns:
        yield [_unquoted(turn) for turn in turns]


def _unquoted(lines: list[str]) -> str:
    text = " ".join(line.strip() for line in lines).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        quote = text[0]
        return text[1:-1].replace(quote * 2 if quote == "'" else '\\"', quote)
    return text
