"""What a task's votes give to supervised training and to KTO. Pure: no Django, no database.

Takes rows of `votes` of one task, so that the views `sft` and `unpaired` can be made of any frozen snapshot.
"""

from collections.abc import Collection, Sequence
from typing import Any

from labeling.preferences.pairing import Vote, mean_ranks, without

Row = dict[str, Any]


def sft_rows(
    votes: Sequence[Row], *, corrections: bool = True, without_flags: Collection[str] = ()
) -> list[Row]:
    """Texts worth imitating, as TRL's `messages`: each correction and demonstration, and the best completion.

    The best is the one that comes first alone in the mean of the rankings, or in the ranking that a reviewer settled, or
    the only one of its task if more than half of those who say so accept it. It is left out where somebody edited it
    (the edit is there instead), where half of those who ranked or more, or the reviewer, said that none is good, and
    where no more than half accept it. Equal texts are one row.
    """
    prompt = votes[0]["prompt"]
    found = _written(votes, corrections)
    edited = {key for vote in votes for key in vote["judgement"].get("corrections", {})} if corrections else set()
    best = _best(votes, flagged_keys(votes, without_flags))
    if best is not None and best not in edited:
        found.append(_origin("best", _completion(votes, best)))
    return _once(
        [{"messages": [*prompt, _said(text)], "source": source, **who} for text, source, who in found],
        lambda row: row["messages"][-1]["content"],
    )


def unpaired_rows(
    votes: Sequence[Row], *, corrections: bool = True, without_flags: Collection[str] = ()
) -> list[Row]:
    """TRL's unpaired preferences: one row a completion that was called acceptable or not, by majority.

    `acceptable_share` is the share of the `n_votes` that accept it; an even split has no label and is left out. What
    annotators wrote themselves, corrections and demonstrations, is acceptable by its being written: label true, no
    share. `none_acceptable` counts for no completion: it says that none is good, not which were weighed. Completions that
    anybody flagged so, `without_flags`, take no part.
    """
    prompt = votes[0]["prompt"]
    rows = []
    flagged = flagged_keys(votes, without_flags)
    for item in votes[0]["completions"]:
        if item["key"] in flagged:
            continue
        said = _acceptable(votes, item["key"])
        share = sum(said) / len(said) if said else 0.5
        if share != 0.5:
            text, source, who = _origin("completion", item)
            rows.append(_unpaired(prompt, text, share > 0.5, share, len(said), source, who))
    for text, source, who in _written(votes, corrections):
        rows.append(_unpaired(prompt, text, True, None, 1, source, who))
    return _once(rows, lambda row: row["completion"][0]["content"])


def _unpaired(
    prompt: list[Row], text: str, label: bool, share: float | None, n_votes: int, source: str, who: Row
) -> Row:
    return {
        "prompt": prompt, "completion": [_said(text)], "label": label, "acceptable_share": share, "n_votes": n_votes,
        "source": source, **who,
    }  # fmt: skip


def _written(votes: Sequence[Row], corrections: bool) -> list[tuple[str, str, Row]]:
    """(text, source, who) of what annotators wrote, in the order of the votes, corrections first."""
    found = []
    for source in ("correction", "demonstration"):
        for vote in votes:
            judgement = vote["judgement"]
            who = {"model": None, "annotator": vote["annotator"], "annotator_kind": vote["annotator_kind"]}
            if source == "demonstration":
                texts = [judgement["demonstration"]] if judgement.get("demonstration") else []
            else:
                texts = [text for _, text in sorted(judgement.get("corrections", {}).items())] if corrections else []
            found += [(text, source, who) for text in texts]
    return found


def flagged_keys(votes: Sequence[Row], flags: Collection[str]) -> set[str]:
    """Keys of the completions that anybody gave one of these flags."""
    return {
        key
        for vote in votes
        for key, given in vote["judgement"].get("flags", {}).items()
        if not set(flags).isdisjoint(given)
    }


def _best(votes: Sequence[Row], flagged: Collection[str]) -> str | None:
    """Key of the completion that the votes hold up as the one to imitate, of those that aren't flagged."""
    all_keys = [item["key"] for item in votes[0]["completions"]]
    keys = [key for key in all_keys if key not in flagged]
    if len(all_keys) == 1 and keys:
        said = _acceptable(votes, keys[0])
        return keys[0] if said and sum(said) > len(said) / 2 else None
    if len(keys) < 2:
        return None
    settled = votes[0].get("adjudication")
    judgements = [settled] if settled else [vote["judgement"] for vote in votes if vote["judgement"].get("ranking")]
    places = mean_ranks(Vote(without(judgement["ranking"], flagged)) for judgement in judgements)
    if not places or 2 * sum(judgement.get("none_acceptable", False) for judgement in judgements) >= len(judgements):
        return None
    first, second = sorted(keys, key=places.__getitem__)[:2]
    said = _acceptable(votes, first)
    if places[first] == places[second] or (said and sum(said) <= len(said) / 2):
        return None
    return first


def _acceptable(votes: Sequence[Row], key: str) -> list[bool]:
    return [said[key] for vote in votes if key in (said := vote["judgement"].get("acceptable", {}))]


def _completion(votes: Sequence[Row], key: str) -> Row:
    return next(item for item in votes[0]["completions"] if item["key"] == key)


def _origin(source: str, completion: Row) -> tuple[str, str, Row]:
    """A completion that was judged; one that an annotator wrote earlier keeps its author."""
    author = completion.get("author") or {"annotator": None, "annotator_kind": None}
    return completion["content"], source, {"model": completion["model"], **author}


def _said(text: str) -> Row:
    return {"role": "assistant", "content": text}


def _once(rows: list[Row], text_of: Any) -> list[Row]:
    """The first row of each text."""
    return list({text_of(row): row for row in reversed(rows)}.values())[::-1]
