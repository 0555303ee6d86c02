"""The lines of tasks on which there is one ranking and nothing else was said.

In a large project that is most of them, and in imported data all. `rows` makes the same lines of such a task, from the
same parts; here they are put into texts that have places for them, with nothing in between.
"""

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import orjson

from labeling.annotation.models import Task
from labeling.annotation.selectors import KEYS
from labeling.preferences.chunks import ReadTask
from labeling.preferences.parts import pair_id, utc
from labeling.projects.text import split_of

if TYPE_CHECKING:
    from labeling.preferences.rows import RowMaker

LETTERS = [key.encode() for key in KEYS]
GOLD = Task.Purpose.GOLD.value
WHO = b'"annotator":%b,"annotator_kind":%b,"at":"'
COMPLETION = b'{"content":%b,"key":"%b","model":%b}'
VOTE = (
    b'{%b"completions":[%b],"gold":%b,"group_id":%b,"guideline_version":%b,"iteration":%d,"judgement":{"ranking":%b%b},'
    b'"licence":%b,"order_shown":%b,"prompt":%b,"task":%b}\n'
)
CHOICE = b'{%b"choice":"%b","guideline_version":%b,"seconds":%b,"shown_order":%b,"strength":null}'
PAIR = (
    b'{"agreement":1.0,"chosen":[{"content":%b,"role":"assistant"}],"chosen_source":%b,"edited":null,"flags":[],'
    b'"group_id":%b,"id":"%b","iteration":%d,"licence":%b,"margin":null,"n_votes":1,"prompt":%b,"reasons":[],'
    b'"rejected":[{"content":%b,"role":"assistant"}],"rejected_source":%b,"soft_label":%b,"split":"%b",'
    b'"strength":null,"tie":%b,"votes":[%b],"weight":%b}\n'
)
CHOSEN, TIED = (b"chosen", b"1.0", b"false"), (b"tie", b"0.5", b"true")
SORTED = orjson.OPT_SORT_KEYS
dumps, loads = orjson.dumps, orjson.loads


class SingleVotes:
    """Makes such lines. What many rows share is kept as JSON."""

    def __init__(self, maker: "RowMaker") -> None:
        self.maker = maker
        policy = maker.policy
        self.drops_ties = policy["ties"] == "drop"
        # A vote shown by itself names its row by its annotator, a consensus has probabilities, and so on.
        self.serves = policy["votes"] == "majority" and policy["pairs"] == "all" and policy["ties"] != "both"
        self.versions = {key: dumps(version) for key, version in maker.guidelines.items()}
        self.words: dict[str | None, bytes] = {}
        self.people: dict[tuple[int, str], bytes] = {}
        self.weights = [b"", b"", *(dumps(1 / comb(n, 2)) for n in range(2, len(KEYS) + 1))]

    def serve(self, task: ReadTask) -> bool:
        """Whether this is such a task."""
        return (
            self.serves
            and len(task.judgements) == 1
            and task.judgements[0][7] == "{}"
            and task.judgements[0][6] != "[]"
            and len(task.completions) > 1
            and task.settled is None
            and not any(item[5] for item in task.completions)
        )

    def lines_of(self, task: ReadTask) -> tuple[str, list[bytes], list[bytes]]:
        """Split, lines of votes and lines of pairs."""
        _, public_id, iteration, purpose, _, messages, group_id, licence, completions, (judgement,), _ = task
        _, _, by, kind, guideline, order_shown, ranking, _, seconds, at = judgement
        maker, tally = self.maker, self.maker.tally
        split = split_of(group_id, maker.eval_share)
        ids = [item[1] for item in completions]
        keys = dict(zip(ids, KEYS, strict=False))
        groups = loads(ranking)
        place = {pk: rank for rank, group in enumerate(groups) for pk in group}
        prompt, group, licensed = dumps(loads(messages), None, SORTED), dumps(group_id), self.word(licence or None)
        who = b"%b%b%b" % (self.who(by, kind), utc(at).encode(), b'",')
        shown, took, version = dumps([keys[pk] for pk in loads(order_shown)]), dumps(seconds), self.versions[guideline]
        contents = [dumps(item[2]) for item in completions]
        said = b",".join(
            [
                COMPLETION % (content, key, self.word(item[3] or None))
                for content, key, item in zip(contents, LETTERS, completions, strict=False)
            ]
        )
        vote = VOTE % (
            who, said, b"true" if purpose == GOLD else b"false", group, version, iteration,
            dumps([sorted([keys[pk] for pk in tied]) for tied in groups]),
            b"" if seconds is None else b',"seconds":%b' % took, licensed, shown, prompt, dumps(public_id),
        )  # fmt: skip
        tally.annotator_kinds[kind] += 1
        tally.said["rankings"] += 1
        if (seen := maker.guidelines[guideline]) is not None:
            tally.guidelines.add(seen)
        tally.views[f"sft.{split}"] += len(groups[0]) == 1
        sources = [maker.source_of(item[3], item[4]) for item in completions]
        weight, lines = self.weights[len(ids)], []
        for one, other in combinations(range(len(ids)), 2):
            difference = place[ids[one]] - place[ids[other]]
            if not difference and self.drops_ties:
                continue
            if difference > 0:
                one, other = other, one
            choice, soft_label, tie = CHOSEN if difference else TIED
            for side in (one, other):
                tally.completions_by_model[completions[side][3] or "unknown"] += 1
            lines.append(
                PAIR % (
                    contents[one], sources[one], group, pair_id(public_id, KEYS[one], KEYS[other]).encode(), iteration,
                    licensed, prompt, contents[other], sources[other], soft_label, split.encode(), tie,
                    CHOICE % (who, choice, version, took, shown), weight,
                )
            )  # fmt: skip
        if lines:
            tally.pairs_by_licence[licence or "unknown"] += len(lines)
        return split, [vote], lines

    def word(self, text: str | None) -> bytes:
        """One of few, as JSON."""
        found = self.words.get(text)
        if found is None:
            found = self.words[text] = dumps(text)
        return found

    def who(self, user: int, kind: str) -> bytes:
        found = self.people.get((user, kind))
        if found is None:
            found = self.people[user, kind] = WHO % (dumps(self.maker.name_of(user)), dumps(kind))
        return found
