"""What changed between two versions of a guideline. Pure: no Django, no database."""

import difflib
import re
from collections.abc import Iterator

TOKENS = re.compile(r"\s+|\w+|[^\w\s]")
MOST_TOKENS = 1500  # of a changed passage; beyond, its lines are shown as out and in
CONTEXT = 2  # lines around a change
ALIKE = 0.6  # of the shorter passage; with less in common, two are not one that was changed

# (kind, text): `same`, `removed`, `added`, or `gap` where equal lines are left out
Part = tuple[str, str]


def changed_parts(before: str, after: str) -> list[Part]:
    """The words that went and came, with some lines around them. Equal texts give []."""
    # The last line ends like the others, so that it isn't another one once something follows it.
    old, new = ((text.replace("\r\n", "\n").rstrip("\n") + "\n").splitlines(keepends=True) for text in (before, after))
    parts: list[Part] = []
    for group in difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT):
        if parts or group[0][1] > 0:
            parts.append(("gap", "…\n"))
        for kind, from_old, to_old, from_new, to_new in group:
            gone, come = "".join(old[from_old:to_old]), "".join(new[from_new:to_new])
            parts += [("same", gone)] if kind == "equal" else _words(gone, come)
    if parts and to_old < len(old):
        parts.append(("gap", "…"))
    return list(_joined(parts))


def _words(gone: str, come: str) -> list[Part]:
    old, new = TOKENS.findall(gone), TOKENS.findall(come)
    if max(len(old), len(new)) > MOST_TOKENS:
        return [("removed", gone), ("added", come)]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    shared = sum(_n_words(old[block.a : block.a + block.size]) for block in matcher.get_matching_blocks())
    if not shared or shared < ALIKE * min(_n_words(old), _n_words(new)):
        return [("removed", gone), ("added", come)]
    parts: list[Part] = []
    for kind, from_old, to_old, from_new, to_new in matcher.get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(old[from_old:to_old])))
        else:
            parts += [("removed", "".join(old[from_old:to_old])), ("added", "".join(new[from_new:to_new]))]
    return parts


def _n_words(tokens: list[str]) -> int:
    return sum(not token.isspace() for token in tokens)


def _joined(parts: list[Part]) -> Iterator[Part]:
    """Neighbours of one kind as one; empty ones left out."""
    kind, text = "", ""
    for next_kind, next_text in parts:
        if next_kind != kind:
            if text:
                yield kind, text
            kind, text = next_kind, ""
        text += next_text
    if text:
        yield kind, text
