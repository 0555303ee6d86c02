"""The rows of a snapshot, drawn from the database task by task in constant memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch, QuerySet

from labeling.annotation.models import Judgement, Slot, Task
from labeling.annotation.selectors import KEYS
from labeling.annotation.services import judgement_body
from labeling.preferences.pairing import Vote, beaten_by_correction, mean_ranks, pairs_of, select_pairs
from labeling.projects.feedback import PER_COMPLETION
from labeling.projects.models import Completion, Project
from labeling.projects.services import pseudonym_of
from labeling.projects.text import sha256, split_of
from labeling.quality.models import Adjudication

Row = dict[str, Any]
CHUNK_TASKS = 200


@dataclass(frozen=True)
class TaskRows:
    """What one task gives to a snapshot: a row for each vote, and a row for each pair."""

    split: str
    group_id: str
    votes: list[Row]
    pairs: list[Row]


def pair_id(task: str, chosen: str, rejected: str) -> str:
    """Of the task's public id and what names the two sides within it: keys, of completions in order of their id."""
    return sha256(f"{task}:{chosen}:{rejected}")[:16]


def is_correction(pair: Row) -> bool:
    """Whether a row of `pairs` is an edit over something, not a comparison of two completions that were shown."""
    return pair["edited"] is not None and pair["edited"] == pair["chosen"]


def judgements_chosen(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> QuerySet[Judgement]:
    """Standing judgements (not superseded, surplus or set aside) that pass the snapshot's filters.

    Those on tasks that a reviewer found unfit are left out where the policy uses what reviewers settled.
    """
    found = Judgement.objects.current().filter(project=project, slot__isnull=False)
    found = found.exclude(slot__state=Slot.State.VOID)
    found = found.filter(task__purpose__in=filters["purposes"])
    if filters["iterations"]:
        found = found.filter(task__iteration__in=filters["iterations"])
    if filters["annotator_kinds"]:
        found = found.filter(annotator_kind__in=filters["annotator_kinds"])
    if filters["up_to_judgement"]:
        found = found.filter(pk__lte=filters["up_to_judgement"])
    if policy["adjudications"] == "use":
        found = found.filter(~Exists(_found_unfit(project, filters).filter(task=OuterRef("task"))))
    return found


def adjudications_chosen(project: Project, filters: dict[str, Any]) -> QuerySet[Adjudication]:
    """Rankings that reviewers settled, as they stood at the newest adjudication that the filters take in."""
    return _standing(project, filters).filter(outcome=Adjudication.Outcome.RANKING).exclude(ranking=[])


def n_left_out_as_unfit(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> int:
    """How many tasks would be in the snapshot, had no reviewer found them unfit."""
    if policy["adjudications"] != "use":
        return 0
    others = judgements_chosen(project, filters, {**policy, "adjudications": "ignore"})
    return _found_unfit(project, filters).filter(task__in=others.values("task")).count()


def _found_unfit(project: Project, filters: dict[str, Any]) -> QuerySet[Adjudication]:
    return _standing(project, filters).filter(outcome=Adjudication.Outcome.UNFIT)


def _standing(project: Project, filters: dict[str, Any]) -> QuerySet[Adjudication]:
    found, bound = Adjudication.objects.filter(project=project), filters["up_to_adjudication"]
    if bound is None:  # nothing is being frozen yet
        return found.filter(superseded_by=None)
    return found.filter(pk__lte=bound).exclude(superseded_by__pk__lte=bound)


def task_rows(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> Iterator[TaskRows]:
    """The rows of each task that has a chosen judgement, in a fixed order."""
    chosen = judgements_chosen(project, filters, policy)
    tasks = (
        Task.objects.filter(project=project, pk__in=chosen.values("task"))
        .select_related("prompt")
        .prefetch_related(
            Prefetch(
                "completions",
                queryset=Completion.objects.select_related("author").order_by("pk"),
                to_attr="in_order",
            ),
            Prefetch(
                "judgements",
                queryset=chosen.select_related("annotator", "guideline").order_by("pk"),
                to_attr="chosen_judgements",
            ),
            Prefetch(
                "adjudications",
                queryset=adjudications_chosen(project, filters).select_related("by")
                if policy["adjudications"] == "use"
                else Adjudication.objects.none(),
                to_attr="standing",
            ),
        )
        .order_by("pk")
    )
    for task in tasks.iterator(chunk_size=CHUNK_TASKS):
        yield _RowsOf(project, task, policy).all()


class _RowsOf:
    """Makes the rows of one task."""

    def __init__(self, project: Project, task: Task, policy: dict[str, Any]) -> None:
        self.project = project
        self.task = task
        self.policy = policy
        self.judgements: list[Judgement] = task.chosen_judgements
        self.by_pk: dict[int, Completion] = {item.pk: item for item in task.in_order}
        self.keys = {pk: KEYS[index] for index, pk in enumerate(self.by_pk)}
        self.pseudonyms = {
            judgement.annotator_id: pseudonym_of(project, judgement.annotator) for judgement in self.judgements
        }
        self.split = split_of(task.prompt.group_id, project.eval_share)
        self.settled: Adjudication | None = next(iter(task.standing), None)

    def all(self) -> TaskRows:
        pairs = self.ranking_pairs()
        if self.policy["corrections"] == "include":
            pairs += self.correction_pairs()
        return TaskRows(self.split, self.task.prompt.group_id, self.votes(), pairs)

    def votes(self) -> list[Row]:
        completions = [self.completion(item) for item in self.by_pk.values()]
        return [
            {
                "task": self.task.public_id,
                "prompt": self.task.prompt.messages,
                "completions": completions,
                "annotator": self.pseudonyms[judgement.annotator_id],
                "annotator_kind": judgement.annotator_kind,
                "judgement": _rename(judgement_body(judgement), judgement.order_shown, self.keys),
                "order_shown": [self.keys[pk] for pk in judgement.order_shown],
                "guideline_version": judgement.guideline.version if judgement.guideline else None,
                "iteration": self.task.iteration,
                "gold": self.task.is_gold,
                "at": _utc(judgement),
            }
            | self.settled_as()
            for judgement in self.judgements
        ]

    def settled_as(self) -> Row:
        """What every row of votes says of an adjudication. Rows of other tasks are what they were before there was any."""
        if self.settled is None:
            return {}
        ranking = [sorted(self.keys[pk] for pk in group) for group in self.settled.ranking]
        said = {"ranking": ranking, "none_acceptable": self.settled.none_acceptable}
        return {"adjudication": said | self.settled_by()}

    def settled_by(self) -> Row:
        return {
            "annotator": pseudonym_of(self.project, self.settled.by), "annotator_kind": self.settled.by.kind,
            "blind": self.settled.blind, "at": _utc(self.settled),
        }  # fmt: skip

    def completion(self, item: Completion) -> Row:
        row = {"key": self.keys[item.pk], "content": item.content, "model": item.model_key or None}
        return row if item.author is None else row | {"author": self.author(item)}

    def author(self, item: Completion) -> Row:
        return {"annotator": pseudonym_of(self.project, item.author), "annotator_kind": item.author.kind}

    def ranking_pairs(self) -> list[Row]:
        """Of the rankings, by majority or as settled. Rows of projects without corrections are what they were before."""
        ranked = [judgement for judgement in self.judgements if judgement.ranking]
        votes = [Vote(judgement.ranking, judgement.feedback.get("strength")) for judgement in ranked]
        settled = self.settled.ranking if self.settled else None
        places = mean_ranks([Vote(settled)] if settled else votes)
        rows = []
        for pair in select_pairs(pairs_of(votes, settled), places, self.policy["pairs"]):
            if pair.tie and self.policy["ties"] == "drop":
                continue
            chosen, rejected = self.by_pk[pair.chosen], self.by_pk[pair.rejected]
            margin = self.policy["margins"].get(str(round(pair.strength))) if pair.strength else None
            rows.append(
                self.pair_row(
                    id=pair_id(self.task.public_id, self.keys[chosen.pk], self.keys[rejected.pk]),
                    chosen=chosen.content,
                    rejected=rejected.content,
                    chosen_source=self.source(chosen),
                    rejected_source=self.source(rejected),
                    strength=pair.strength,
                    tie=pair.tie,
                    margin=margin,
                    weight=pair.weight,
                    agreement=pair.agreement,
                    votes=[
                        self.vote_on(judgement, _choice(judgement, pair.chosen, pair.rejected)) for judgement in ranked
                    ],
                    edited=None if pair.tie else self.edit_of(pair.chosen),
                    judgements=ranked,
                    flagged=(pair.chosen, pair.rejected),
                    **({"adjudication": self.settled_by()} if settled else {}),
                )
            )
        return rows

    def correction_pairs(self) -> list[Row]:
        """Each edit over what it corrects, and over what its author ranked strictly below that; together they weigh 1.

        One person's word each: n_votes and agreement are 1. Edits by several people are not merged.
        """
        rows = []
        for judgement in self.judgements:
            for corrected, text in _corrections(judgement).items():
                beaten = [
                    pk for pk in beaten_by_correction(judgement.ranking, corrected) if self.by_pk[pk].content != text
                ]
                writer = self.pseudonyms[judgement.annotator_id]
                author = {"annotator": writer, "annotator_kind": judgement.annotator_kind}
                for pk in beaten:
                    edit = f"{self.keys[corrected]} by {writer}"
                    rows.append(
                        self.pair_row(
                            id=pair_id(self.task.public_id, edit, self.keys[pk]),
                            chosen=text,
                            rejected=self.by_pk[pk].content,
                            chosen_source=dict.fromkeys(("model", "revision", "adapter", "sampling", "seed"))
                            | {"author": author},
                            rejected_source=self.source(self.by_pk[pk]),
                            strength=None,
                            tie=False,
                            margin=None,
                            weight=1 / len(beaten),
                            agreement=1.0,
                            votes=[self.vote_on(judgement, "chosen", strength=None)],
                            edited=_said(text),
                            judgements=[judgement],
                            flagged=(pk,),
                        )
                    )
        return rows

    def pair_row(
        self, *, id: str, chosen: str, rejected: str, votes: list[Row], judgements: list[Judgement],
        flagged: tuple[int, ...], **rest: Any,
    ) -> Row:  # fmt: skip
        """A row of `pairs`; `judgements` are those whose reasons, and flags on `flagged`, belong to it."""
        prompt = self.task.prompt
        return rest | {
            "id": id,
            "group_id": prompt.group_id,
            "iteration": self.task.iteration,
            "prompt": prompt.messages,
            "chosen": _said(chosen),
            "rejected": _said(rejected),
            "n_votes": len(votes),
            "votes": votes,
            "reasons": [text for judgement in judgements if (text := judgement.feedback.get("rationale"))],
            "flags": sorted(
                {
                    flag
                    for judgement in judgements
                    for pk, flags in judgement.feedback.get("flags", {}).items()
                    if int(pk) in flagged
                    for flag in flags
                }
            ),
            "split": self.split,
            "licence": prompt.licence or None,
        }

    def edit_of(self, pk: int) -> list[Row] | None:
        """The newest correction of the completion, if the policy includes them."""
        edits = [found[pk] for judgement in self.judgements if pk in (found := _corrections(judgement))]
        return _said(edits[-1]) if edits and self.policy["corrections"] == "include" else None

    def source(self, completion: Completion) -> Row:
        known = completion.sampling
        source = {
            "model": completion.model_key or None,
            "revision": known.get("revision"),
            "adapter": known.get("adapter"),
            "sampling": {key: value for key, value in known.items() if key not in ("revision", "adapter", "seed")}
            or None,
            "seed": known.get("seed"),
        }
        return source if completion.author is None else source | {"author": self.author(completion)}

    def vote_on(self, judgement: Judgement, choice: str, **instead: Any) -> Row:
        return {
            "annotator": self.pseudonyms[judgement.annotator_id],
            "annotator_kind": judgement.annotator_kind,
            "choice": choice,
            "strength": judgement.feedback.get("strength"),
            "shown_order": [self.keys[pk] for pk in judgement.order_shown],
            "seconds": judgement.seconds,
            "guideline_version": judgement.guideline.version if judgement.guideline else None,
            "at": _utc(judgement),
        } | instead


def _rename(body: Row, order_shown: list[int], keys: dict[int, str]) -> Row:
    """From the keys of the page, random per presentation, to the fixed keys of the task."""
    new = {KEYS[index]: keys[pk] for index, pk in enumerate(order_shown)}
    renamed = dict(body)
    if "ranking" in body:
        renamed["ranking"] = [sorted(new[key] for key in group) for group in body["ranking"]]
    for name in PER_COMPLETION:
        if name in body:
            renamed[name] = {
                new[key]: value for key, value in sorted(body[name].items(), key=lambda item: new[item[0]])
            }
    return renamed


def _corrections(judgement: Judgement) -> dict[int, str]:
    found = judgement.feedback.get("corrections", {})
    return {int(pk): found[pk] for pk in sorted(found, key=int)}


def _choice(judgement: Judgement, chosen: int, rejected: int) -> str:
    rank = {pk: index for index, group in enumerate(judgement.ranking) for pk in group}
    if rank[chosen] == rank[rejected]:
        return "tie"
    return "chosen" if rank[chosen] < rank[rejected] else "rejected"


def _said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def _utc(said: Judgement | Adjudication) -> str:
    return said.created_at.isoformat().replace("+00:00", "Z")
