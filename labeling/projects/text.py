"""Canonical forms and hashes of prompts and completions. Pure."""

import hashlib
import json
import re
import unicodedata
from typing import Any

ROLES = ("system", "user", "assistant")


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, Unicode as it is."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_hash(messages: list[dict[str, str]]) -> str:
    """Of a prompt's messages: equal in content is one prompt."""
    return sha256(canonical_json([[message["role"], message["content"].strip()] for message in messages]))


def group_id(messages: list[dict[str, str]]) -> str:
    """Prompts alike but for case, digits, accents, punctuation and spacing fall in one group, so in one split."""
    text = " ".join(message["content"] for message in messages if message["role"] != "system")
    text = unicodedata.normalize("NFKD", text).casefold()
    words = re.findall(r"[^\W\d_]+", "".join(char for char in text if not unicodedata.combining(char)))
    # A text without words (digits, symbols) is its own group.
    return sha256(" ".join(words) or canonical_json([message["content"] for message in messages]))[:16]


def split_of(group: str, eval_share: float) -> str:
    """`train` or `eval`: a fixed function of the group, so pairs of one prompt group never part."""
    return "eval" if int(sha256("split:" + group)[:8], 16) / 0xFFFFFFFF < eval_share else "train"
