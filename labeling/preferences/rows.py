"""The rows of a snapshot, as lines of canonical JSON, task by task.

Canonical: keys sorted, no spaces, UTF-8. Parts that several rows share are made into JSON once, and every dictionary
below names its keys in order, so that nothing has to be sorted again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from labeling.accounts.models import User
from labeling.annotation.models import Task
from labeling.annotation.selectors import KEYS
from labeling.preferences.chunks import ReadAdjudication, ReadCompletion, ReadJudgement, ReadTask
from labeling.preferences.filters import Filters, Policy
from labeling.preferences.pairing import (
    Pair,
    Probabilities,
    Vote,
    beaten_by_correction,
    margin_of,
    mean_ranks,
    pairs_for_training,
    without,
)
from labeling.preferences.parts import pair_id, utc
from labeling.preferences.single_votes import SingleVotes
from labeling.preferences.supervised import sft_rows, unpaired_rows
from labeling.projects.feedback import PER_COMPLETION
from labeling.projects.models import Project
from labeling.projects.services import pseudonym_of
from labeling.projects.text import split_of

Row = dict[str, Any]
WRITTEN = "written by annotators"  # where the manifest counts completions by model
MOST_REMEMBERED = 20_000  # sources, as JSON
NO_SOURCE = dict.fromkeys(("adapter", "model", "revision", "sampling", "seed"))
# A judgement with these parts alone gives supervised rows by its ranking and nothing else.
OF_RANKINGS = {"strength", "rationale", "ratings", "flags", "marks"}
SORTED = orjson.OPT_SORT_KEYS
LINE = orjson.OPT_APPEND_NEWLINE


@dataclass
class Tally:
    """What the rows so far hold, for the manifest."""

    annotator_kinds: Counter[str] = field(default_factory=Counter)
    pairs_by_licence: Counter[str] = field(default_factory=Counter)
    completions_by_model: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    guidelines: set[int] = field(default_factory=set)
    n_correction_pairs: int = 0
    n_adjudicated_tasks: int = 0
    n_adjudicated_pairs: int = 0


class TaskLines(NamedTuple):
    """What one task gives to a snapshot: a line for each vote, and a line for each pair."""

    split: str
    votes: list[bytes]
    pairs: list[bytes]


class RowMaker:
    """Makes the lines of tasks, and counts what is in them."""

    def __init__(
        self, project: Project, filters: Filters, policy: Policy, guidelines: Mapping[int | None, int | None]
    ) -> None:
        self.project = project
        self.policy = policy
        self.eval_share = project.eval_share
        self.unwanted = frozenset(filters["without_flags"])
        self.min_agreement = filters["min_agreement"]
        self.includes_corrections = policy["corrections"] == "include"
        self.guidelines = guidelines
        self.tally = Tally()
        self._single_votes = SingleVotes(self)
        self._names: dict[int, str] = {}
        self._sources: dict[tuple[str, str], bytes] = {}

    def lines_of(self, task: ReadTask, probabilities: Probabilities | None = None) -> TaskLines:
        """`probabilities` are the consensus of the task's votes, where the policy wants it."""
        if self._single_votes.serve(task):
            return TaskLines._make(self._single_votes.lines_of(task))
        made = _RowsOfTask(self, task)
        split = made.split
        pairs = made.ranking_pairs(probabilities)
        if self.includes_corrections:
            pairs += made.correction_pairs()
        if pairs:
            self.tally.pairs_by_licence[task.licence or "unknown"] += len(pairs)
        lines = TaskLines(split, made.votes(), pairs)
        n_sft, n_unpaired = made.n_supervised()
        self.tally.views[f"sft.{split}"] += n_sft
        self.tally.views[f"unpaired.{split}"] += n_unpaired
        return lines

    def name_of(self, user: int) -> str:
        """Their pseudonym."""
        if user not in self._names:
            self._names[user] = pseudonym_of(self.project, User(pk=user))
        return self._names[user]

    def source_of(self, model_key: str, sampling: str) -> bytes:
        """Where a completion comes from, as JSON."""
        found = self._sources.get((model_key, sampling))
        if found is None:
            if len(self._sources) >= MOST_REMEMBERED:
                self._sources.clear()
            known = orjson.loads(sampling)
            source = {
                "adapter": known.pop("adapter", None),
                "model": model_key or None,
                "revision": known.pop("revision", None),
                "seed": known.pop("seed", None),
                "sampling": known or None,
            }
            found = self._sources[model_key, sampling] = orjson.dumps(source, None, SORTED)
        return found

    def author(self, user: int, kind: str | None) -> Row:
        return {"annotator": self.name_of(user), "annotator_kind": kind}


class _Said:
    """One judgement, completions by the task's keys."""

    __slots__ = ("_on", "at", "feedback", "judgement", "kind", "name", "place", "ranking", "seconds", "shown", "version")

    def __init__(self, maker: RowMaker, judgement: ReadJudgement, keys: Mapping[int, str]) -> None:
        self.judgement = judgement
        self.name, self.kind = maker.name_of(judgement.annotator), judgement.annotator_kind
        self.version = maker.guidelines[judgement.guideline]
        self.ranking: list[list[int]] = orjson.loads(judgement.ranking)
        self.feedback: Row = {} if judgement.feedback == "{}" else orjson.loads(judgement.feedback)
        self.shown = [keys[pk] for pk in orjson.loads(judgement.order_shown)]
        self.seconds = judgement.seconds
        self.at = utc(judgement.at)
        self.place = {pk: rank for rank, group in enumerate(self.ranking) for pk in group}
        self._on: dict[str, orjson.Fragment] = {}

    def row_on(self, choice: str) -> orjson.Fragment:
        """As one of a pair's votes."""
        found = self._on.get(choice)
        if found is None:
            found = self._on[choice] = orjson.Fragment(
                orjson.dumps(self.vote_row(choice, self.feedback.get("strength")))
            )
        return found

    def vote_row(self, choice: str, strength: int | None) -> Row:
        return {
            "annotator": self.name,
            "annotator_kind": self.kind,
            "at": self.at,
            "choice": choice,
            "guideline_version": self.version,
            "seconds": self.seconds,
            "shown_order": self.shown,
            "strength": strength,
        }

    def choice(self, chosen: int, rejected: int) -> str:
        one, other = self.place[chosen], self.place[rejected]
        return "chosen" if one < other else "rejected" if other < one else "tie"

    def body(self, keys: Mapping[int, str]) -> Row:
        """The judgement as it was submitted."""
        body: Row = {}
        if self.ranking:
            body["ranking"] = [sorted([keys[pk] for pk in group]) for group in self.ranking]
        for name, value in self.feedback.items():
            body[name] = {keys[int(pk)]: item for pk, item in value.items()} if name in PER_COMPLETION else value
        if self.seconds is not None:
            body["seconds"] = self.seconds
        return body

    @property
    def corrections(self) -> list[tuple[int, str]]:
        """(completion, its new text), by id."""
        return sorted((int(pk), text) for pk, text in self.feedback.get("corrections", {}).items())


class _RowsOfTask:
    """Makes the rows of one task."""

    def __init__(self, maker: RowMaker, task: ReadTask) -> None:
        self.maker, self.task = maker, task
        self.completions = list(map(ReadCompletion._make, task.completions))
        self.by_pk = {item.pk: item for item in self.completions}
        self.keys = dict(zip(self.by_pk, KEYS, strict=False))
        self.said = [_Said(maker, ReadJudgement._make(judgement), self.keys) for judgement in task.judgements]
        self.split = split_of(task.group_id, maker.eval_share)
        self.prompt = orjson.Fragment(orjson.dumps(orjson.loads(task.messages), option=SORTED))
        self.settled: list[list[int]] | None = orjson.loads(task.settled.ranking) if task.settled else None
        self.has_feedback = any(said.feedback for said in self.said)
        self.flagged = self._flagged() if maker.unwanted and self.has_feedback else frozenset()
        self._texts: dict[int, orjson.Fragment] = {}

    def _flagged(self) -> frozenset[int]:
        """What takes no part in pairs."""
        return frozenset(
            int(pk)
            for said in self.said
            for pk, flags in said.feedback.get("flags", {}).items()
            if not self.maker.unwanted.isdisjoint(flags)
        )

    # --- votes ------------------------------------------------------------------------------------
    def votes(self) -> list[bytes]:
        task, tally = self.task, self.maker.tally
        completions = orjson.Fragment(orjson.dumps([self._completion(item) for item in self.completions]))
        settled = {"adjudication": self._settled_as()} if self.settled is not None else {}
        tally.n_adjudicated_tasks += bool(settled)
        lines = []
        for said in self.said:
            body = said.body(self.keys)
            tally.annotator_kinds[said.kind] += 1
            if said.judgement.guideline is not None and said.version is not None:
                tally.guidelines.add(said.version)
            self._count(said)
            row = settled | {
                "annotator": said.name,
                "annotator_kind": said.kind,
                "at": said.at,
                "completions": completions,
                "gold": task.purpose == Task.Purpose.GOLD,
                "group_id": task.group_id,
                "guideline_version": said.version,
                "iteration": task.iteration,
                "judgement": orjson.Fragment(orjson.dumps(body, option=SORTED)) if said.feedback else body,
                "licence": task.licence or None,
                "order_shown": said.shown,
                "prompt": self.prompt,
                "task": task.public_id,
            }
            lines.append(orjson.dumps(row, option=LINE))
        return lines

    def _count(self, said: _Said) -> None:
        """Rankings and demonstrations, and the rest by completion, marks each."""
        counted, feedback = self.maker.tally.said, said.feedback
        counted["rankings"] += bool(said.ranking)
        if feedback:
            counted["demonstrations"] += "demonstration" in feedback
            for part in ("corrections", "acceptable", "ratings"):
                counted[part] += len(feedback.get(part, {}))
            counted["marks"] += sum(map(len, feedback.get("marks", {}).values()))

    def _completion(self, item: ReadCompletion) -> Row:
        row = {"content": item.content, "key": self.keys[item.pk], "model": item.model_key or None}
        return row if item.author is None else {"author": self.maker.author(item.author, item.author_kind), **row}

    def _settled_as(self) -> Row:
        """What every row of votes says of an adjudication. Rows of other tasks are what they were before there was any."""
        by = self._settled_by()
        ranking = [sorted(self.keys[pk] for pk in group) for group in self.settled or []]
        said = {"none_acceptable": bool(_of(self.task.settled).none_acceptable), "ranking": ranking}
        return dict(sorted((by | said).items()))

    def _settled_by(self) -> Row:
        settled = _of(self.task.settled)
        by = self.maker.author(settled.by, settled.by_kind)
        return {**by, "at": utc(settled.at), "blind": bool(settled.blind)}

    # --- pairs ------------------------------------------------------------------------------------
    def ranking_pairs(self, probabilities: Probabilities | None) -> list[bytes]:
        """Of the rankings, by the policy or as settled."""
        ranked = [said for said in self.said if said.ranking]
        if not ranked:
            return []
        rankings, settled = [said.ranking for said in ranked], self.settled
        if self.flagged:
            rankings = [without(ranking, self.flagged) for ranking in rankings]
            settled = without(settled, self.flagged) if settled else settled
            if not rankings[0]:
                return []
            if probabilities:
                probabilities = {
                    pair: known for pair, known in probabilities.items() if self.flagged.isdisjoint(pair)
                }
        votes = [
            Vote(ranking, said.feedback.get("strength")) for ranking, said in zip(rankings, ranked, strict=True)
        ]
        pairs = pairs_for_training(
            votes, self.maker.policy, settled=settled, probabilities=probabilities,
            min_agreement=self.maker.min_agreement,
        )  # fmt: skip
        if self.settled:
            self.maker.tally.n_adjudicated_pairs += len(pairs)
        return [self._ranking_pair(pair, ranked if pair.vote is None else [ranked[pair.vote]]) for pair in pairs]

    def _ranking_pair(self, pair: Pair, voted: list[_Said]) -> bytes:
        chosen, rejected = pair.chosen, pair.rejected
        other = self.keys[rejected] if pair.vote is None else f"{self.keys[rejected]} by {voted[0].name}"
        return self._line(
            id=pair_id(self.task.public_id, self.keys[chosen], other),
            chosen=self._text(chosen),
            rejected=self._text(rejected),
            sources=(self._source(chosen), self._source(rejected)),
            pair=pair,
            votes=[said.row_on(said.choice(chosen, rejected)) for said in voted],
            edited=None if pair.tie or not self.has_feedback else self._edit_of(chosen),
            said=voted,
            flagged=(chosen, rejected),
            settled=self._settled_by() if self.settled else None,
        )

    def correction_pairs(self) -> list[bytes]:
        """Each edit over what it corrects, and over what its author ranked strictly below that; together they weigh 1.

        One person's word each: n_votes and agreement are 1. Edits by several people are not merged.
        """
        if not self.has_feedback:
            return []
        lines = []
        for said in self.said:
            for corrected, text in said.corrections:
                beaten = [
                    pk for pk in beaten_by_correction(said.ranking, corrected)
                    if self.by_pk[pk].content != text and pk not in self.flagged
                ]  # fmt: skip
                edit = f"{self.keys[corrected]} by {said.name}"
                author = {"author": {"annotator": said.name, "annotator_kind": said.kind}}
                edited, source = _message(text), orjson.Fragment(orjson.dumps(NO_SOURCE | author, option=SORTED))
                for pk in beaten:
                    self.maker.tally.completions_by_model[WRITTEN] += 1
                    lines.append(
                        self._line(
                            id=pair_id(self.task.public_id, edit, self.keys[pk]),
                            chosen=edited,
                            rejected=self._text(pk),
                            sources=(source, self._source(pk)),
                            pair=Pair(corrected, pk, False, 1, 1.0, None, 1 / len(beaten)),
                            votes=[said.vote_row("chosen", None)],
                            edited=edited,
                            said=[said],
                            flagged=(pk,),
                        )
                    )
        self.maker.tally.n_correction_pairs += len(lines)
        return lines

    def _line(
        self, *, id: str, chosen: orjson.Fragment, rejected: orjson.Fragment, pair: Pair,
        sources: tuple[orjson.Fragment, orjson.Fragment], votes: Sequence[Any], edited: orjson.Fragment | None,
        said: list[_Said], flagged: tuple[int, ...], settled: Row | None = None,
    ) -> bytes:  # fmt: skip
        """A row of `pairs`; `said` are those whose reasons, and flags on `flagged`, belong to it."""
        task, feedback = self.task, self.has_feedback
        row = {
            "agreement": pair.agreement,
            "chosen": chosen,
            "chosen_source": sources[0],
            "edited": edited,
            "flags": _flags_on(said, flagged) if feedback else [],
            "group_id": task.group_id,
            "id": id,
            "iteration": task.iteration,
            "licence": task.licence or None,
            "margin": margin_of(pair.strength, self.maker.policy["margins"]),
            "n_votes": len(votes),
            "prompt": self.prompt,
            "reasons": _reasons(said) if feedback else [],
            "rejected": rejected,
            "rejected_source": sources[1],
            "soft_label": pair.soft_label,
            "split": self.split,
            "strength": pair.strength,
            "tie": pair.tie,
            "votes": votes,
            "weight": pair.weight,
        }
        return orjson.dumps(row if settled is None else {"adjudication": settled, **row}, option=LINE)

    def _text(self, pk: int) -> orjson.Fragment:
        found = self._texts.get(pk)
        if found is None:
            found = self._texts[pk] = _message(self.by_pk[pk].content)
        return found

    def _source(self, pk: int) -> orjson.Fragment:
        item = self.by_pk[pk]
        model = item.model_key or ("unknown" if item.author is None else WRITTEN)
        self.maker.tally.completions_by_model[model] += 1
        source = self.maker.source_of(item.model_key, item.sampling)
        if item.author is not None:
            author = {"author": self.maker.author(item.author, item.author_kind)}
            source = orjson.dumps(orjson.loads(source) | author, None, SORTED)
        return orjson.Fragment(source)

    def _edit_of(self, pk: int) -> orjson.Fragment | None:
        """The newest correction of the completion, if the policy includes them."""
        edits = [text for said in self.said for corrected, text in said.corrections if corrected == pk]
        return _message(edits[-1]) if edits and self.maker.includes_corrections else None

    # --- what else can be made of the votes --------------------------------------------------------
    def n_supervised(self) -> tuple[int, int]:
        """How many rows for SFT and for KTO the task's votes give, as `supervised` makes them."""
        if self.settled is None and not self.flagged and not any(said.feedback.keys() - OF_RANKINGS for said in self.said):
            return self._has_best(), 0
        completions = [self._completion(item) for item in self.completions]
        settled = {"adjudication": self._settled_as()} if self.settled is not None else {}
        votes = [
            {
                "prompt": [], "completions": completions, "annotator": said.name, "annotator_kind": said.kind,
                "judgement": said.body(self.keys), **settled,
            }
            for said in self.said
        ]  # fmt: skip
        how: Row = {"corrections": self.maker.includes_corrections, "without_flags": self.maker.unwanted}
        return len(sft_rows(votes, **how)), len(unpaired_rows(votes, **how))

    def _has_best(self) -> bool:
        """Whether one completion alone comes first in the mean of the rankings."""
        rankings = [said.ranking for said in self.said if said.ranking]
        if not rankings or len(self.by_pk) < 2:
            return False
        if len(rankings) == 1:
            return len(rankings[0][0]) == 1
        places = list(mean_ranks(map(Vote, rankings)).values())
        return places.count(min(places)) == 1


def _message(text: str) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps([{"content": text, "role": "assistant"}]))


def _reasons(said: Iterable[_Said]) -> list[str]:
    return [text for one in said if (text := one.feedback.get("rationale"))]


def _flags_on(said: Iterable[_Said], completions: tuple[int, ...]) -> list[str]:
    return sorted(
        {
            flag
            for one in said
            for pk, flags in one.feedback.get("flags", {}).items()
            if int(pk) in completions
            for flag in flags
        }
    )


def _of(settled: ReadAdjudication | None) -> ReadAdjudication:
    assert settled is not None
    return settled
