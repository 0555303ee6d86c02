"""The rows of a snapshot, drawn from the database task by task in constant memory."""

from collections.abc import Iterator
from typing import Any

from django.db.models import Prefetch, QuerySet

from labeling.annotation.models import Judgement, Task
from labeling.annotation.selectors import KEYS
from labeling.annotation.services import judgement_body
from labeling.preferences.pairing import Vote, mean_ranks, pairs_of, select_pairs
from labeling.projects.models import Completion, Project
from labeling.projects.services import pseudonym_of
from labeling.projects.text import sha256, split_of

Row = dict[str, Any]
CHUNK_TASKS = 200


def judgements_chosen(project: Project, filters: dict[str, Any]) -> QuerySet[Judgement]:
    """Standing judgements (not superseded, not surplus, not of gold tasks) that pass the snapshot's filters."""
    found = Judgement.objects.filter(
        project=project, superseded_by=None, slot__isnull=False, task__is_gold=False
    )
    found = found.filter(task__purpose__in=filters["purposes"])
    if filters["iterations"]:
        found = found.filter(task__iteration__in=filters["iterations"])
    if filters["annotator_kinds"]:
        found = found.filter(annotator_kind__in=filters["annotator_kinds"])
    if filters["up_to_judgement"]:
        found = found.filter(pk__lte=filters["up_to_judgement"])
    return found


def task_rows(
    project: Project, filters: dict[str, Any], policy: dict[str, Any]
) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """Yields (split, vote rows, pair rows) for each task that has a chosen judgement, in a fixed order."""
    chosen = judgements_chosen(project, filters)
    tasks = (
        Task.objects.filter(project=project, pk__in=chosen.values("task"))
        .select_related("prompt")
        .prefetch_related(
            Prefetch("completions", queryset=Completion.objects.order_by("pk"), to_attr="in_order"),
            Prefetch(
                "judgements",
                queryset=chosen.select_related("annotator", "guideline").order_by("pk"),
                to_attr="chosen_judgements",
            ),
        )
        .order_by("pk")
    )
    pseudonyms: dict[int, str] = {}
    for task in tasks.iterator(chunk_size=CHUNK_TASKS):
        split = split_of(task.prompt.group_id, project.eval_share)
        keys = {completion.pk: KEYS[index] for index, completion in enumerate(task.in_order)}
        for judgement in task.chosen_judgements:
            if judgement.annotator_id not in pseudonyms:
                pseudonyms[judgement.annotator_id] = pseudonym_of(project, judgement.annotator)
        yield split, _votes(task, keys, pseudonyms), _pairs(task, keys, pseudonyms, policy, split)


def _votes(task: Task, keys: dict[int, str], pseudonyms: dict[int, str]) -> list[Row]:
    completions = [
        {"key": keys[item.pk], "content": item.content, "model": item.model_key or None}
        for item in task.in_order
    ]
    return [
        {
            "task": task.public_id,
            "prompt": task.prompt.messages,
            "completions": completions,
            "annotator": pseudonyms[judgement.annotator_id],
            "annotator_kind": judgement.annotator_kind,
            "judgement": _rename(judgement_body(judgement), judgement.order_shown, keys),
            "order_shown": [keys[pk] for pk in judgement.order_shown],
            "guideline_version": judgement.guideline.version if judgement.guideline else None,
            "iteration": task.iteration,
            "gold": task.is_gold,
            "at": judgement.created_at.isoformat().replace("+00:00", "Z"),
        }
        for judgement in task.chosen_judgements
    ]


def _rename(body: Row, order_shown: list[int], keys: dict[int, str]) -> Row:
    """From the keys of the page, random per presentation, to the fixed keys of the task."""
    new = {KEYS[index]: keys[pk] for index, pk in enumerate(order_shown)}
    renamed = dict(body)
    if "ranking" in body:
        renamed["ranking"] = [sorted(new[key] for key in group) for group in body["ranking"]]
    for name in ("ratings", "acceptable", "flags", "corrections"):
        if name in body:
            renamed[name] = {
                new[key]: value for key, value in sorted(body[name].items(), key=lambda item: new[item[0]])
            }
    return renamed


def _pairs(
    task: Task, keys: dict[int, str], pseudonyms: dict[int, str], policy: dict[str, Any], split: str
) -> list[Row]:
    ranked = [judgement for judgement in task.chosen_judgements if judgement.ranking]
    votes = [Vote(judgement.ranking, judgement.feedback.get("strength")) for judgement in ranked]
    by_pk = {item.pk: item for item in task.in_order}
    rows = []
    for pair in select_pairs(pairs_of(votes), mean_ranks(votes), policy["pairs"]):
        if pair.tie and policy["ties"] == "drop":
            continue
        chosen, rejected = by_pk[pair.chosen], by_pk[pair.rejected]
        rows.append(
            {
                "id": sha256(f"{task.public_id}:{keys[chosen.pk]}:{keys[rejected.pk]}")[:16],
                "group_id": task.prompt.group_id,
                "iteration": task.iteration,
                "prompt": task.prompt.messages,
                "chosen": [{"role": "assistant", "content": chosen.content}],
                "rejected": [{"role": "assistant", "content": rejected.content}],
                "strength": pair.strength,
                "tie": pair.tie,
                "margin": policy["margins"].get(str(round(pair.strength))) if pair.strength else None,
                "weight": pair.weight,
                "chosen_source": _source(chosen),
                "rejected_source": _source(rejected),
                "n_votes": pair.n_votes,
                "agreement": pair.agreement,
                "votes": [
                    _vote_on(judgement, pair.chosen, pair.rejected, keys, pseudonyms) for judgement in ranked
                ],
                "edited": None,
                "reasons": [text for judgement in ranked if (text := judgement.feedback.get("rationale"))],
                "flags": sorted(
                    {
                        flag
                        for judgement in ranked
                        for pk, flags in judgement.feedback.get("flags", {}).items()
                        if int(pk) in (pair.chosen, pair.rejected)
                        for flag in flags
                    }
                ),
                "split": split,
                "licence": task.prompt.licence or None,
            }
        )
    return rows


def _source(completion: Completion) -> Row:
    known = completion.sampling
    return {
        "model": completion.model_key or None,
        "revision": known.get("revision"),
        "adapter": known.get("adapter"),
        "sampling": {key: value for key, value in known.items() if key not in ("revision", "adapter", "seed")}
        or None,
        "seed": known.get("seed"),
    }


def _vote_on(
    judgement: Judgement, chosen: int, rejected: int, keys: dict[int, str], pseudonyms: dict[int, str]
) -> Row:
    rank = {pk: index for index, group in enumerate(judgement.ranking) for pk in group}
    choice = (
        "tie" if rank[chosen] == rank[rejected] else "chosen" if rank[chosen] < rank[rejected] else "rejected"
    )
    return {
        "annotator": pseudonyms[judgement.annotator_id],
        "annotator_kind": judgement.annotator_kind,
        "choice": choice,
        "strength": judgement.feedback.get("strength"),
        "shown_order": [keys[pk] for pk in judgement.order_shown],
        "seconds": judgement.seconds,
        "guideline_version": judgement.guideline.version if judgement.guideline else None,
        "at": judgement.created_at.isoformat().replace("+00:00", "Z"),
    }
