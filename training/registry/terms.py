"""Terms that a project must have accepted before a model under them is used: whose they are, and who accepted which.

A model stands under the terms of all that it was made of, of its teacher too. What is accepted is a text with a hash, so
changed terms are asked about again; what stands under several asks for each once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from labeling.accounts.models import User
from labeling.projects.models import Project
from labeling.projects.text import canonical_json, sha256
from training.registry.errors import TermsChanged, TermsNotAccepted
from training.registry.models import ModelVersion, TermsAcceptance

TERMS = ("licence", "licence_url", "fee_due", "acceptance_due", "output_restrictions")


def terms_said(model: ModelVersion) -> dict[str, Any]:
    """The terms entered of this very row, as they are accepted."""
    return {name: getattr(model, name) for name in TERMS}


def terms_hash(model: ModelVersion) -> str:
    return sha256(canonical_json(terms_said(model)))


def under_terms_of(*models: ModelVersion) -> list[ModelVersion]:
    """Whose terms ask something of whoever uses these models: their own, and those of all they were made of."""
    found: list[ModelVersion] = []
    seen = {model.pk for model in models}
    queue = list(models)
    while queue:
        model = queue.pop(0)
        if model.asks and not model.terms_are_of_sources:
            found.append(model)
        taught_by = ModelVersion.objects.filter(runs_beside__output_model=model).distinct()  # runs are an app above
        for source in (model.parent, model.base, *(taught_by if model.parent_id else ())):
            if source is not None and source.pk not in seen:
                seen.add(source.pk)
                queue.append(source)
    return found


def terms_to_accept(project: Project, *models: ModelVersion) -> list[ModelVersion]:
    """Of `under_terms_of` those whose terms, as they are now, nobody accepted for the project."""
    asking = under_terms_of(*models)
    if not asking:
        return []
    accepted = set(
        TermsAcceptance.objects.filter(project=project, model__in=asking).values_list("model_id", "terms_hash")
    )
    return [model for model in asking if (model.pk, terms_hash(model)) not in accepted]


def why_not_accepted(project: Project, *models: ModelVersion) -> str:
    """What keeps the project from using the models, with the way forward; empty: nothing."""
    missing = terms_to_accept(project, *models)
    if not missing:
        return ""
    keys = " and ".join(model.key for model in missing)
    return (
        f"stands under terms of {keys} that nobody of this project has accepted: "
        f"a lead reads and accepts them on the page of {keys}, under Licence and terms"
    )


def refuse_unaccepted(project: Project, model: ModelVersion) -> None:
    """Raises TermsNotAccepted."""
    if problem := why_not_accepted(project, model):
        raise TermsNotAccepted(f"{model.key} {problem}", terms_to_accept(project, model))


def accept_terms(*, model: ModelVersion, project: Project, terms_hash: str, accepted_by: User) -> TermsAcceptance:
    """Keep that a person accepted the terms of this very model for the project. The same again gives the first.

    `terms_hash` is that of the terms they read. Raises TermsChanged where others are in force by now, or none.
    """
    with transaction.atomic():
        model = ModelVersion.objects.select_for_update().get(pk=model.pk)
        if not model.asks or model.terms_are_of_sources:
            raise TermsChanged(f"{model.key} has no terms of its own to accept")
        if terms_hash != sha256(canonical_json(terms_said(model))):
            raise TermsChanged(f"The terms of {model.key} have changed meanwhile: read them again")
        known = {"model": model, "project": project, "terms_hash": terms_hash}
        accepted, _ = TermsAcceptance.objects.get_or_create(
            **known, defaults={"terms": terms_said(model), "accepted_by": accepted_by}
        )
    return accepted


@dataclass(frozen=True)
class Asked:
    """Terms that stand over a model, and whether the project has accepted them as they are."""

    model: ModelVersion
    terms_hash: str
    accepted: TermsAcceptance | None
    earlier: list[TermsAcceptance]  # of terms that are no longer in force, newest first


def asked_of(project: Project, model: ModelVersion) -> list[Asked]:
    asking = under_terms_of(model)
    rows = TermsAcceptance.objects.filter(project=project, model__in=asking).select_related("accepted_by").order_by("-pk")
    kept: dict[int, list[TermsAcceptance]] = {}
    for row in rows if asking else ():
        kept.setdefault(row.model_id, []).append(row)
    return [_asked(source, kept.get(source.pk, ())) for source in asking]


def _asked(source: ModelVersion, rows: Iterable[TermsAcceptance]) -> Asked:
    now = terms_hash(source)
    return Asked(
        source, now, next((row for row in rows if row.terms_hash == now), None), [row for row in rows if row.terms_hash != now]
    )
