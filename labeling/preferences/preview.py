"""What a snapshot would hold, before anything is frozen."""

import tempfile
from pathlib import Path
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from labeling.annotation.models import Judgement, TaskCompletion
from labeling.preferences.filters import (
    DEFAULT_FILTERS,
    FILTERS,
    complete_filters,
    complete_policy,
    judgements_chosen,
    left_out_by_figures,
    n_left_out_as_unfit,
)
from labeling.preferences.freezing import SPLITS, write_rows
from labeling.preferences.models import Withdrawal
from labeling.projects.models import Project
from labeling.projects.text import canonical_json, sha256, split_of
from labeling.web.remembering import remembered

SMALL = 2000  # judgements up to which the rows are made to be counted, and thrown away
# Parts of a judgement that snapshots export by rows of their own, and what one does in giving them.
PARTS = {"acceptable": "accept or refuse", "corrections": "correct", "demonstration": "demonstrate"}
# These leave out pairs or completions and no judgement.
OF_PAIRS = ("min_agreement", "without_flags")

Preview = dict[str, Any]


def preview_of(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> Preview:
    """How much would pass, of whom, in which split, and what each filter leaves out. Raises BadFilter.

    Pairs are counted where the project is small, else None. Counts of a large project are remembered for some seconds.
    """
    filters, policy = complete_filters(filters), complete_policy(policy)
    asked = sha256(canonical_json([filters, policy, project.eval_share]))
    return remembered(
        f"preview:{project.pk}:{asked}", lambda: _preview_of(project, filters, policy), n=lambda found: found["judgements"]
    )


def _preview_of(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> Preview:
    chosen = judgements_chosen(project, filters, policy)
    totals = chosen.aggregate(
        judgements=Count("pk"), tasks=Count("task", distinct=True), prompts=Count("task__prompt", distinct=True),
        ranked=Count("pk", filter=~Q(ranking=[])),
        **{part: Count("pk", filter=Q(feedback__has_key=part)) for part in PARTS},
    )  # fmt: skip
    kinds = chosen.order_by().values_list("annotator_kind")
    kinds = kinds.annotate(n=Count("pk"), people=Count("annotator", distinct=True)).order_by("annotator_kind")
    holding = [("rank", totals["ranked"]), *((words, totals[part]) for part, words in PARTS.items())]
    manifest = _made(project, filters, policy) if 0 < totals["judgements"] <= SMALL else None
    return {
        **{name: totals[name] for name in ("judgements", "tasks", "prompts", "ranked")},
        "pairs": manifest["n_pairs"] if manifest else None if totals["judgements"] else 0,
        "splits": _splits(project, chosen, manifest),
        "kinds": [{"kind": kind, "judgements": n, "annotators": people} for kind, n, people in kinds],
        "holding": [{"part": words, "judgements": n} for words, n in holding if n],
        "unfit": n_left_out_as_unfit(project, filters, policy),
        "withdrawn": _n_withdrawn(project),
        "left_out": _left_out(project, filters, policy, totals["judgements"], manifest),
        "left_out_annotators": left_out_by_figures(project, filters),
    }


def _made(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="prefloop-preview-") as folder:
        return write_rows(project, filters, policy, Path(folder))[1]


def _splits(project: Project, chosen: QuerySet[Judgement], manifest: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Of each split its prompt groups, judgements and, where they are counted, pairs."""
    found: dict[str, dict[str, Any]] = {split: {"groups": 0, "judgements": 0, "pairs": None} for split in SPLITS}
    for group, n in chosen.order_by().values_list("task__prompt__group_id").annotate(n=Count("pk")):
        split = found[split_of(group, project.eval_share)]
        split["groups"] += 1
        split["judgements"] += n
    for split in SPLITS if manifest else ():
        found[split]["pairs"] = manifest["files"][f"pairs.{split}.jsonl"]["rows"]
    return found


def _n_withdrawn(project: Project) -> int:
    """Standing judgements that no filter can let in, since the person or the prompt was withdrawn."""
    standing = Withdrawal.objects.filter(project=project, undone_at=None)
    people = standing.filter(annotator__isnull=False).values("annotator")
    prompts = standing.filter(prompt__isnull=False).values("prompt")
    over_texts = TaskCompletion.objects.filter(task=OuterRef("task"), completion__author__in=people)
    rows = project.judgements.current().filter(slot__isnull=False)
    return rows.filter(Q(annotator__in=people) | Q(task__prompt__in=prompts) | Exists(over_texts)).count()


def _left_out(
    project: Project, filters: dict[str, Any], policy: dict[str, Any], n: int, manifest: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """For each filter that is set, how much more would pass without it alone: judgements, or pairs where they count."""
    rows = []
    for name, part in FILTERS.items():
        if part.is_set or filters[name] == DEFAULT_FILTERS[name]:
            continue
        without = {**filters, name: DEFAULT_FILTERS[name]}
        if name not in OF_PAIRS:
            more = judgements_chosen(project, without, policy).count() - n
            rows.append({"filter": name, "judgements": more, "pairs": None})
        elif manifest:
            more = _made(project, without, policy)["n_pairs"] - manifest["n_pairs"]
            rows.append({"filter": name, "judgements": 0, "pairs": more})
    return rows
