"""Languages and skills: how they are written, and whether somebody has what is asked for. Pure: no Django, no database.

A language is a code such as `de` or `en-GB`. Whoever has `en-GB` has `en` too; `en` alone isn't `en-GB`. A skill is a
word or some that a project chooses, such as `law`. Case makes no difference to either.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

MOST = 30  # languages of one person or pool, and skills
MAX_SKILL = 40
_CODE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_SKILL = re.compile(r"[^\s,;\x00-\x1f\x7f]+( [^\s,;\x00-\x1f\x7f]+)*")


def checked_languages(items: Any) -> tuple[list[str], str]:
    """As they are kept, each once, and what is wrong with them (empty: nothing)."""
    return _checked(items, _language, "is not the code of a language: write it like de, en-GB or zh-Hant")


def checked_skills(items: Any) -> tuple[list[str], str]:
    return _checked(items, _skill, f"is not a skill: write words of at most {MAX_SKILL} characters, without commas")


def has_all(*, languages: Collection[str], skills: Collection[str], of: Any) -> bool:
    """Whether somebody with these `languages` and `skills` has what is asked for: all `of.languages`, all `of.skills`."""
    return set(of.skills) <= set(skills) and all(
        any(language == needed or language.startswith(f"{needed}-") for language in languages)
        for needed in of.languages
    )


def in_list(text: str) -> list[str]:
    """What somebody typed with commas between."""
    return [" ".join(part.split()) for part in re.split(r"[,;\n]", text) if part.strip()]


def _checked(items: Any, written: Any, problem: str) -> tuple[list[str], str]:
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        return [], "must be a list of texts"
    wrong = [item for item in items if written(item) is None]
    if wrong:
        return [], f"{wrong[0][:60]!r} {problem}"
    found: Iterable[str] = dict.fromkeys(written(item) for item in items)
    full = list(found)
    return (full, "") if len(full) <= MOST else ([], f"are {len(full)}: at most {MOST}")


def _language(code: str) -> str | None:
    """`EN-gb` as `en-GB`, as BCP 47 has it."""
    if not _CODE.fullmatch(code.strip()):
        return None
    first, *rest = code.strip().lower().split("-")
    return "-".join([first, *(_subtag(part) for part in rest)])


def _subtag(part: str) -> str:
    return part.upper() if len(part) == 2 else part.title() if len(part) == 4 and part.isalpha() else part


def _skill(words: str) -> str | None:
    text = " ".join(words.split()).lower()
    return text if _SKILL.fullmatch(text) and len(text) <= MAX_SKILL else None
