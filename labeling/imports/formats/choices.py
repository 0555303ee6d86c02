"""How people write down which completion is the better one: words, letters, numbers, orders, signed scales. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labeling.imports.formats.checks import KEYS, RowRejected, as_json, axis_name, number_of, preferred, shown

BOTH_BAD = {
    "both_bad", "bothbad", "tie_bothbad", "tie_both_bad", "both_are_bad", "all_bad", "none_is_good", "neither_is_good",
    "none_good", "neither_good",
}  # fmt: skip
TIE = {
    "tie", "tied", "ties", "draw", "equal", "equally_good", "equal_quality", "same", "the_same", "both", "both_good", "both_are_good",
    "neither", "no_preference", "no_difference", "none_is_better", "neither_is_better", "about_the_same", "tie_good", "tie_both_good",
}  # fmt: skip
NUMBERED = {"left": 0, "right": 1, "first": 0, "second": 1, "third": 2, "fourth": 3, "one": 0, "two": 1, "three": 2, "four": 3}
FILLERS = {
    "model", "response", "answer", "completion", "output", "option", "candidate", "text", "assistant", "system", "reply", "summary",
    "generation", "is", "was", "better", "best", "wins", "win", "won", "winner", "prefer", "preferred", "the", "much", "slightly",
    "conversation", "choice", "item", "one",
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    ranking: list[list[str]]
    none_acceptable: bool = False

    def judgement(self) -> dict[str, Any]:
        return {"ranking": self.ranking} | ({"none_acceptable": True} if self.none_acceptable else {})


def choice_of(
    value: Any, n: int, names: Sequence[Sequence[str]] = (), *, letters: Sequence[str] = KEYS, from_zero: bool = False
) -> Choice | None:
    """Which of `n` completions the value calls the best, or that they tie; None where it says neither.

    `names` are other names of each, such as the model's; `letters` are those that the source gave them. Of more than two
    the others tie behind the best. Numbers count from 1 and 0 is a tie, unless they count `from_zero`.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        # What is not a number fails too.
        if not 0 <= value <= 99 or value != int(value):
            return None
        value = str(int(value))
    if not isinstance(value, str) or len(value) > 200:
        return None
    plain = value.strip().casefold()
    if re.match(r"[-+]\s*\d", plain):
        return None  # a signed scale says something else
    owners = [at for at, own in enumerate(names) if plain and plain in {name.strip().casefold() for name in own}]
    if len(owners) == 1:
        return _best(owners[0], n)
    slug = axis_name(value)
    if slug in BOTH_BAD:
        return Choice([list(KEYS[:n])], none_acceptable=True)
    if slug in TIE or (slug == "0" and not from_zero):
        return Choice([list(KEYS[:n])])
    words = [word for word in re.findall(r"[^\W\d_]+|\d+", plain) if word not in FILLERS]
    if len(words) != 1:
        return None
    at = _place(words[0], list(letters[:n]), from_zero)
    return None if at is None else _best(at, n)


def _place(word: str, letters: list[str], from_zero: bool) -> int | None:
    if word.isdecimal() and word.isascii() and len(word) < 4:
        at = int(word) - (0 if from_zero else 1)
    elif word in letters:
        at = letters.index(word)
    else:
        at = NUMBERED.get(word, -1)
    return at if 0 <= at < len(letters) else None


def _best(at: int, n: int) -> Choice:
    others = [key for index, key in enumerate(KEYS[:n]) if index != at]
    return Choice([[KEYS[at]], *([others] if others else [])])


def order_of(value: Any, letters: Sequence[str], where: str) -> list[list[str]]:
    """A ranking: "B,D=A,C" or "b > d = a > c", best first, or a list of letters or of groups of them.

    `letters` are what the source calls the completions, in their order. Raises RowRejected where it does not name each
    once.
    """
    groups: Any = as_json(value, list)
    if groups is None:
        if not isinstance(value, str) or len(value) > 500:
            raise RowRejected(f"{where}: must be an order such as B,D=A,C, best first")
        groups = [re.split(r"[=~]", group) for group in re.split(r"[,>;]+", value)]
    ranking = []
    for group in groups:
        members = group if isinstance(group, list) else [group]
        if not members:
            raise RowRejected(f"{where}: has an empty group")
        ranking.append([_key(member, letters, where) for member in members])
    if sorted(key for group in ranking for key in group) != list(KEYS[: len(letters)]):
        raise RowRejected(f"{where}: must name each of the {len(letters)} completions once")
    return ranking


def _key(member: Any, letters: Sequence[str], where: str) -> str:
    word = member.strip().casefold() if isinstance(member, str) else ""
    if word not in letters or not word:
        raise RowRejected(f"{where}: names {shown(member)}, which is not one of {', '.join(letters).upper()}")
    return KEYS[letters.index(word)]


def scaled(value: Any, where: str) -> dict[str, Any] | None:
    """A judgement of two completions from a signed number: negative is the first, 0 neither, the size how much better.

    Sizes 1 to 3 are strengths; on other scales only the sign is read.
    """
    number = number_of(value, where)
    if number is None:
        return None
    judgement: dict[str, Any] = {"ranking": preferred(None if number == 0 else 0 if number < 0 else 1)}
    if abs(number) in (1, 2, 3):
        judgement["strength"] = int(abs(number))
    return judgement
