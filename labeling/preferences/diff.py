"""What two snapshots differ in: by the ids of their pairs, prompts and judgements, never by holding their rows.

A pair's id is 64 bits: of its task and of its two sides in their order. The same id in both snapshots is the same pair,
changed if the rest of its row is another; the id of its sides the other way round is the pair flipped.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, permutations
from pathlib import Path
from typing import Any

import numpy
import orjson

from labeling.preferences.contents import contents_of, is_in
from labeling.preferences.filters import FILTERS, POLICY
from labeling.preferences.models import Snapshot
from labeling.preferences.rows import pair_id
from labeling.preferences.services import SPLITS, snapshots_folder
from labeling.preferences.views_out.making import Hashed, made, make, read_rows

FOLDER = "compared-1"  # counts up when a release compares differently
MOST_EXAMPLES = 20
BATCH = 1 << 16
# Of each pair, sorted by id: what its row says beside its id and split, and where it begins in the split's file.
PAIR = numpy.dtype([("id", "<u8"), ("content", "<u8"), ("place", "<u8"), ("is_eval", "?")])
PROMPT = numpy.dtype([("prompt", "<u8"), ("is_eval", "?")])
Diff = dict[str, Any]


def difference(before: Snapshot, after: Snapshot) -> Diff:
    """Made at the first ask and kept, since neither ever changes. Raises BeingMade where somebody else is at it."""
    target = _folder(before) / f"{after.content_hash}.json"
    if not made(target):
        make(target, partial(_write_difference, before, after))
    return _named(before, after) | orjson.loads(target.read_bytes())


def _write_difference(before: Snapshot, after: Snapshot, output: Hashed) -> int:
    output.write(orjson.dumps(_difference(before, after)))
    return 1


def _named(before: Snapshot, after: Snapshot) -> Diff:
    """What they were asked for: of no cost, and two snapshots of the same rows are one."""
    return {
        "before": {"id": str(before.pk), "number": before.number, "content_hash": before.content_hash},
        "after": {"id": str(after.pk), "number": after.number, "content_hash": after.content_hash},
        "filters": _settings(FILTERS, before.filters, after.filters),
        "policy": _settings(POLICY, before.policy, after.policy),
        "eval_share": [before.manifest.get("eval_share"), after.manifest.get("eval_share")],
    }


def _settings(parts: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Where they differ. What a snapshot doesn't know, since it is older, is as it was by default then."""
    rows = []
    for name, part in parts.items():
        values = [found.get(name, part.default) for found in (before, after)]
        if values[0] != values[1]:
            rows.append({"name": name, "before": values[0], "after": values[1]})
    return rows


def _difference(before: Snapshot, after: Snapshot) -> Diff:
    old, new = pairs_in(before), pairs_in(after)
    is_kept = is_in(old["id"], new["id"])
    kept_old = old[is_kept]
    kept_new = new[is_in(new["id"], old["id"])]
    is_changed = kept_old["content"] != kept_new["content"]
    removed, added = old[~is_kept], new[~is_in(new["id"], old["id"])]
    flipped = flipped_among(before, after, removed["id"], added["id"])
    is_flipped, was_flipped = numpy.isin(added["id"], flipped[:, 1]), numpy.isin(removed["id"], flipped[:, 0])
    turned = removed[numpy.searchsorted(removed["id"], flipped[:, 0])]
    found = {
        "added": (after, added[~is_flipped]),
        "removed": (before, removed[~was_flipped]),
        "flipped": (before, turned),
        "changed": (after, kept_new[is_changed]),
    }
    judgements = [contents_of(snapshot).judgements for snapshot in (before, after)]
    moved, prompts = _prompts(before, after)
    return {
        "pairs": {
            "before": len(old), "after": len(new), "same": int((~is_changed).sum()),
            **{kind: len(rows) for kind, (_, rows) in found.items()},
        },
        "judgements": {
            "before": len(judgements[0]), "after": len(judgements[1]),
            "added": int((~is_in(judgements[1], judgements[0])).sum()),
            "removed": int((~is_in(judgements[0], judgements[1])).sum()),
        },
        "prompts": prompts,
        "moved": moved,
        "examples": {kind: [_shown(snapshot, row) for row in rows[:MOST_EXAMPLES]] for kind, (snapshot, rows) in found.items()},
    }  # fmt: skip


def flipped_among(before: Snapshot, after: Snapshot, removed: numpy.ndarray, added: numpy.ndarray) -> numpy.ndarray:
    """Of the pairs that are gone and those that are new, (old id, new id) of those whose two sides changed places.

    A pair's id is a hash of its task and sides, so the ids of each task's pairs are made again; both arrays are sorted.
    """
    found = [numpy.empty((0, 2), dtype=numpy.uint64)]
    if len(removed) and len(added):
        by_name = before.policy.get("votes") == after.policy.get("votes") == "each"
        for ways in _both_ways(before, by_name):
            found.append(ways[is_in(ways[:, 0], removed) & is_in(ways[:, 1], added)])
    flipped = numpy.concatenate(found)
    return flipped[numpy.argsort(flipped[:, 0])]


def _both_ways(snapshot: Snapshot, by_name: bool) -> Iterator[numpy.ndarray]:
    """The ids of every pair of two ranked completions, each beside that of the same pair the other way round."""
    ways = array("Q")
    for split in SPLITS:
        for task, votes in _tasks_in(snapshot, split):
            keys = [completion["key"] for completion in votes[0]["completions"]]
            for said in [f" by {vote['annotator']}" for vote in votes] if by_name else [""]:
                ids = {(one, other): int(pair_id(task, one, other + said), 16) for one, other in permutations(keys, 2)}
                for (one, other), number in ids.items():
                    ways.extend((number, ids[other, one]))
            if len(ways) > BATCH:
                yield numpy.frombuffer(ways, dtype=numpy.uint64).reshape(-1, 2)
                ways = array("Q")
    if ways:
        yield numpy.frombuffer(ways, dtype=numpy.uint64).reshape(-1, 2)


def _tasks_in(snapshot: Snapshot, split: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each task with its votes, which lie together."""
    rows = read_rows(snapshots_folder() / snapshot.folder / f"votes.{split}.jsonl")
    for task, votes in groupby(rows, key=lambda row: row["task"]):
        yield task, list(votes)


def _prompts(before: Snapshot, after: Snapshot) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The first prompts that moved from one split to the other, and how many moved, came and went."""
    old, new = prompts_in(before), prompts_in(after)
    both = is_in(old["prompt"], new["prompt"])
    there = new[numpy.searchsorted(new["prompt"], old["prompt"][both])] if both.any() else new[:0]
    moves = old["is_eval"][both] != there["is_eval"]
    moved = there[moves]
    wanted = {int(prompt) for prompt in moved["prompt"][:MOST_EXAMPLES]}
    shown = []
    for split in SPLITS if wanted else ():
        for _, votes in _tasks_in(after, split):
            if (number := _number_of(votes[0]["prompt"])) in wanted:
                wanted.discard(number)
                shown.append({"prompt": votes[0]["prompt"], "to": split})
    return shown, {
        "before": len(old), "after": len(new), "added": len(new) - int(both.sum()), "removed": len(old) - int(both.sum()),
        "to_eval": int(moved["is_eval"].sum()), "to_train": int((~moved["is_eval"]).sum()),
    }  # fmt: skip


def _shown(snapshot: Snapshot, row: Any) -> dict[str, Any]:
    """A pair as it is in the snapshot, in short."""
    split = SPLITS[int(row["is_eval"])]
    with open(snapshots_folder() / snapshot.folder / f"pairs.{split}.jsonl", "rb") as file:
        file.seek(int(row["place"]))
        pair = orjson.loads(file.readline())
    return {name: pair[name] for name in ("id", "split", "prompt", "chosen", "rejected", "agreement", "n_votes", "tie")}


# --- what is compared ---------------------------------------------------------------------------
def pairs_in(snapshot: Snapshot) -> numpy.ndarray:
    """Of every pair its PAIR, sorted by id: a file that is mapped, not read."""
    return _mapped(snapshot, "pairs", PAIR, _write_pairs)


def prompts_in(snapshot: Snapshot) -> numpy.ndarray:
    """Of every prompt that was judged its PROMPT, sorted."""
    return _mapped(snapshot, "prompts", PROMPT, _write_prompts)


def _mapped(snapshot: Snapshot, name: str, shape: numpy.dtype, write: Callable[[Snapshot, Hashed], int]) -> numpy.ndarray:
    target = _folder(snapshot) / f"{name}.bin"
    if not made(target):
        make(target, partial(write, snapshot))
    return numpy.memmap(target, dtype=shape, mode="r") if target.stat().st_size else numpy.empty(0, dtype=shape)


def _folder(snapshot: Snapshot) -> Path:
    return snapshots_folder() / snapshot.folder / FOLDER


def _write_pairs(snapshot: Snapshot, output: Hashed) -> int:
    ids, contents, places, ends = array("Q"), array("Q"), array("Q"), []
    for split in SPLITS:
        place = 0
        marked = f',"split":"{split}",'.encode()
        with open(snapshots_folder() / snapshot.folder / f"pairs.{split}.jsonl", "rb") as file:
            for line in file:
                ids.append(int(orjson.loads(line)["id"], 16))
                # A prompt in the other split is another matter. Within a text the marks would be escaped.
                contents.append(_number(line.replace(marked, b",")))
                places.append(place)
                place += len(line)
        ends.append(len(ids))
    rows = numpy.empty(len(ids), dtype=PAIR)
    rows["id"], rows["content"], rows["place"] = ids, contents, places
    rows["is_eval"] = numpy.arange(len(ids)) >= ends[0]
    output.write(numpy.sort(rows, order="id").tobytes())
    return len(rows)


def _write_prompts(snapshot: Snapshot, output: Hashed) -> int:
    numbers, ends = array("Q"), []
    for split in SPLITS:
        numbers.extend(_number_of(votes[0]["prompt"]) for _, votes in _tasks_in(snapshot, split))
        ends.append(len(numbers))
    rows = numpy.empty(len(numbers), dtype=PROMPT)
    rows["prompt"], rows["is_eval"] = numbers, numpy.arange(len(numbers)) >= ends[0]
    rows = numpy.unique(rows)
    output.write(rows.tobytes())
    return len(rows)


def _number_of(prompt: list[dict[str, str]]) -> int:
    return _number(orjson.dumps(prompt, option=orjson.OPT_SORT_KEYS))


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
