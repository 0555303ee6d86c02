"""Canonical forms and hashes of prompts and completions. Pure."""

import hashlib
import json
import re
import unicodedata
from itertools import filterfalse
from typing import Any

ROLES = ("system", "user", "assistant")
WORD = re.compile(r"[^\W\d_]+")
_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
SUBSTANCE_CHARS = 20  # a greeting opens many conversations that have nothing else in common


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, Unicode as it is."""
    return _CANONICAL.encode(value)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_hash(messages: list[dict[str, str]]) -> str:
    """Of a prompt's messages: equal in content is one prompt."""
    return sha256(canonical_json([[message["role"], message["content"].strip()] for message in messages]))


def opening(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """How a conversation begins: up to the user's message by which they have said something of substance.

    What they ask next belongs to the same conversation, whose later turns hold the earlier ones word for word.
    """
    said = 0
    if len(messages) == 1:  # nearly always
        return messages
    for end, message in enumerate(messages, start=1):
        if message["role"] == "user":
            said += len(words(message["content"]))
            if said >= SUBSTANCE_CHARS:
                return messages[:end]
    return messages


def words(text: str) -> str:
    """Without case, digits, accents, punctuation and spacing, one space between words."""
    if not text.isascii():
        text = "".join(filterfalse(unicodedata.combining, unicodedata.normalize("NFKD", text)))
    return " ".join(WORD.findall(text.casefold()))


def opening_words(messages: list[dict[str, str]]) -> str:
    """The words of the opening but for the system prompt; empty where it has none, only digits or symbols."""
    return words(" ".join(message["content"] for message in opening(messages) if message["role"] != "system"))


def group_id(messages: list[dict[str, str]]) -> str:
    """Prompts whose openings are alike but for case, digits, accents, punctuation and spacing fall in one group.

    So all turns of one conversation are in one split. `grouping` joins groups that are nearly alike.
    """
    # A text without words is its own group.
    return sha256(opening_words(messages) or canonical_json([message["content"] for message in messages]))[:16]


def split_of(group: str, eval_share: float) -> str:
    """`train` or `eval`: a fixed function of the group, so pairs of one prompt group never part."""
    return "eval" if int(sha256("split:" + group)[:8], 16) / 0xFFFFFFFF < eval_share else "train"
