"""The rows of a snapshot once more, made plainly: an instance for everything, a query for each, nothing shared.

What freezing writes is held against this, byte for byte.
"""

import json
from collections import Counter
from itertools import combinations
from typing import Any

import orjson

from labeling.annotation.models import Judgement, Task
from labeling.annotation.selectors import KEYS
from labeling.annotation.services import judgement_body
from labeling.preferences.filters import adjudications_chosen, judgements_chosen
from labeling.preferences.pairing import Vote, beaten_by_correction, pairs_for_training, without
from labeling.preferences.parts import pair_id
from labeling.preferences.supervised import sft_rows, unpaired_rows
from labeling.projects.feedback import PER_COMPLETION
from labeling.projects.models import Completion, Project
from labeling.projects.services import pseudonym_of
from labeling.projects.text import split_of
from labeling.quality.models import Adjudication, QualityReport
from labeling.quality.statistics.consensus import usual_confusion

Row = dict[str, Any]


def plain_files(project: Project, filters: Row, policy: Row) -> dict[str, bytes]:
    """The four files of rows, and under `views` how many rows are made of the votes."""
    files = {f"{kind}.{split}.jsonl": b"" for kind in ("votes", "pairs") for split in ("train", "eval")}
    views: Counter[str] = Counter()
    chosen = judgements_chosen(project, filters, policy)
    for task in Task.objects.filter(pk__in=chosen.values("task")).order_by("pk"):
        made = PlainTask(task, list(chosen.filter(task=task).order_by("pk")), filters, policy)
        for kind, rows in (("votes", made.votes()), ("pairs", made.pairs())):
            for row in rows:
                files[f"{kind}.{made.split}.jsonl"] += orjson.dumps(row, option=orjson.OPT_SORT_KEYS) + b"\n"
        how = {"corrections": policy["corrections"] == "include", "without_flags": filters["without_flags"]}
        views[f"sft.{made.split}"] += len(sft_rows(made.votes(), **how))
        views[f"unpaired.{made.split}"] += len(unpaired_rows(made.votes(), **how))
    return files | {"views": json.dumps(dict(sorted(views.items()))).encode()}


class PlainTask:
    def __init__(self, task: Task, judgements: list[Judgement], filters: Row, policy: Row) -> None:
        self.task, self.project, self.judgements = task, task.project, judgements
        self.filters, self.policy = filters, policy
        self.completions = {item.pk: item for item in task.completions.order_by("pk")}
        self.keys = dict(zip(self.completions, KEYS, strict=False))
        self.split = split_of(task.prompt.group_id, task.project.eval_share)
        self.settled = adjudications_chosen(task.project, filters).filter(task=task).first()
        if policy["adjudications"] == "ignore":
            self.settled = None
        self.flagged = {
            int(pk)
            for judgement in judgements
            for pk, flags in judgement.feedback.get("flags", {}).items()
            if set(flags) & set(filters["without_flags"])
        }

    def votes(self) -> list[Row]:
        return [
            {
                "task": self.task.public_id,
                "prompt": self.task.prompt.messages,
                "completions": [self.completion(item) for item in self.completions.values()],
                **self.who(judgement.annotator),
                "judgement": self.renamed(judgement),
                "order_shown": [self.keys[pk] for pk in judgement.order_shown],
                "guideline_version": judgement.guideline.version if judgement.guideline else None,
                "iteration": self.task.iteration,
                "gold": self.task.is_gold,
                "at": utc(judgement),
                "group_id": self.task.prompt.group_id,
                "licence": self.task.prompt.licence or None,
                **self.settled_as(),
            }
            for judgement in self.judgements
        ]

    def who(self, user: Any) -> Row:
        return {"annotator": pseudonym_of(self.project, user), "annotator_kind": user.kind}

    def renamed(self, judgement: Judgement) -> Row:
        """From the keys of the page, random per presentation, to the fixed keys of the task."""
        new = {KEYS[index]: self.keys[pk] for index, pk in enumerate(judgement.order_shown)}
        body = judgement_body(judgement)
        if "ranking" in body:
            body["ranking"] = [sorted(new[key] for key in group) for group in body["ranking"]]
        for name in PER_COMPLETION:
            if name in body:
                body[name] = {new[key]: value for key, value in body[name].items()}
        return body

    def settled_as(self) -> Row:
        if self.settled is None:
            return {}
        ranking = [sorted(self.keys[pk] for pk in group) for group in self.settled.ranking]
        said = {"ranking": ranking, "none_acceptable": self.settled.none_acceptable}
        return {"adjudication": said | self.settled_by(self.settled)}

    def settled_by(self, settled: Adjudication) -> Row:
        return {**self.who(settled.by), "blind": settled.blind, "at": utc(settled)}

    def completion(self, item: Completion) -> Row:
        row = {"key": self.keys[item.pk], "content": item.content, "model": item.model_key or None}
        return row if item.author is None else row | {"author": self.who(item.author)}

    def pairs(self) -> list[Row]:
        edits = self.correction_pairs() if self.policy["corrections"] == "include" else []
        return self.ranking_pairs() + edits

    def ranking_pairs(self) -> list[Row]:
        ranked = [judgement for judgement in self.judgements if judgement.ranking]
        votes = [
            Vote(without(judgement.ranking, self.flagged), judgement.feedback.get("strength")) for judgement in ranked
        ]
        if not votes or not votes[0].ranking:
            return []
        probabilities = None
        if self.policy["votes"] == "consensus" and not self.settled:
            probabilities = probabilities_of(ranked, {pk for group in votes[0].ranking for pk in group})
        rows = []
        for pair in pairs_for_training(
            votes, self.policy, settled=without(self.settled.ranking, self.flagged) if self.settled else None,
            probabilities=probabilities, min_agreement=self.filters["min_agreement"],
        ):  # fmt: skip
            chosen, rejected = self.completions[pair.chosen], self.completions[pair.rejected]
            voted = ranked if pair.vote is None else [ranked[pair.vote]]
            by = "" if pair.vote is None else f" by {pseudonym_of(self.project, voted[0].annotator)}"
            edits = [found for judgement in self.judgements for pk, found in corrections(judgement) if pk == pair.chosen]
            shows_edit = edits and not pair.tie and self.policy["corrections"] == "include"
            rows.append(
                {
                    "id": pair_id(self.task.public_id, self.keys[chosen.pk], self.keys[rejected.pk] + by),
                    "chosen": said(chosen.content),
                    "rejected": said(rejected.content),
                    "chosen_source": self.source(chosen),
                    "rejected_source": self.source(rejected),
                    "strength": pair.strength,
                    "tie": pair.tie,
                    "margin": self.policy["margins"].get(str(round(pair.strength))) if pair.strength else None,
                    "weight": pair.weight,
                    "soft_label": pair.soft_label,
                    "agreement": pair.agreement,
                    "votes": [self.vote_on(one, choice(one, pair.chosen, pair.rejected)) for one in voted],
                    "n_votes": len(voted),
                    "edited": said(edits[-1]) if shows_edit else None,
                    **self.of_prompt(),
                    **feedback_of(voted, {pair.chosen, pair.rejected}),
                    **({"adjudication": self.settled_by(self.settled)} if self.settled else {}),
                }
            )
        return rows

    def correction_pairs(self) -> list[Row]:
        rows = []
        for judgement in self.judgements:
            for corrected, text in corrections(judgement):
                beaten = [
                    pk
                    for pk in beaten_by_correction(judgement.ranking, corrected)
                    if self.completions[pk].content != text and pk not in self.flagged
                ]
                writer = self.who(judgement.annotator)
                rows += [
                    {
                        "id": pair_id(
                            self.task.public_id, f"{self.keys[corrected]} by {writer['annotator']}", self.keys[pk]
                        ),
                        "chosen": said(text),
                        "rejected": said(self.completions[pk].content),
                        "chosen_source": {
                            "model": None, "revision": None, "adapter": None, "sampling": None, "seed": None,
                            "author": writer,
                        },
                        "rejected_source": self.source(self.completions[pk]),
                        "strength": None,
                        "tie": False,
                        "margin": None,
                        "weight": 1 / len(beaten),
                        "soft_label": 1.0,
                        "agreement": 1.0,
                        "votes": [self.vote_on(judgement, "chosen") | {"strength": None}],
                        "n_votes": 1,
                        "edited": said(text),
                        **self.of_prompt(),
                        **feedback_of([judgement], {pk}),
                    }
                    for pk in beaten
                ]  # fmt: skip
        return rows

    def of_prompt(self) -> Row:
        prompt = self.task.prompt
        return {
            "group_id": prompt.group_id,
            "iteration": self.task.iteration,
            "prompt": prompt.messages,
            "split": self.split,
            "licence": prompt.licence or None,
        }

    def source(self, completion: Completion) -> Row:
        known = dict(completion.sampling)
        source = {
            "model": completion.model_key or None,
            "revision": known.pop("revision", None),
            "adapter": known.pop("adapter", None),
            "seed": known.pop("seed", None),
            "sampling": known or None,
        }
        return source if completion.author is None else source | {"author": self.who(completion.author)}

    def vote_on(self, judgement: Judgement, choice: str) -> Row:
        return {
            **self.who(judgement.annotator),
            "choice": choice,
            "strength": judgement.feedback.get("strength"),
            "shown_order": [self.keys[pk] for pk in judgement.order_shown],
            "seconds": judgement.seconds,
            "guideline_version": judgement.guideline.version if judgement.guideline else None,
            "at": utc(judgement),
        }


def probabilities_of(judgements: list[Judgement], completions: set[int]) -> Row:
    """Bayes' rule with the confusion matrices of the newest report: true by given, of first, second and tie."""
    model = QualityReport.objects.get(project=judgements[0].project).consensus
    found = {}
    for first, second in combinations(sorted(completions), 2):
        odds = list(model["priors"])
        for judgement in judgements:
            said = {"chosen": 0, "rejected": 1, "tie": 2}[choice(judgement, first, second)]
            matrix = model["confusion"].get(str(judgement.annotator_id), usual_confusion().tolist())
            odds = [p * given[said] for p, given in zip(odds, matrix, strict=True)]
        found[first, second] = tuple(p / sum(odds) for p in odds)
    return found


def feedback_of(judgements: list[Judgement], completions: set[int]) -> Row:
    flags = {
        flag
        for judgement in judgements
        for pk, flags in judgement.feedback.get("flags", {}).items()
        if int(pk) in completions
        for flag in flags
    }
    reasons = [judgement.feedback["rationale"] for judgement in judgements if judgement.feedback.get("rationale")]
    return {"flags": sorted(flags), "reasons": reasons}


def corrections(judgement: Judgement) -> list[tuple[int, str]]:
    found = judgement.feedback.get("corrections", {})
    return [(int(pk), found[pk]) for pk in sorted(found, key=int)]


def choice(judgement: Judgement, chosen: int, rejected: int) -> str:
    rank = {pk: index for index, group in enumerate(judgement.ranking) for pk in group}
    if rank[chosen] == rank[rejected]:
        return "tie"
    return "chosen" if rank[chosen] < rank[rejected] else "rejected"


def said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def utc(row: Judgement | Adjudication) -> str:
    return row.created_at.isoformat().replace("+00:00", "Z")
