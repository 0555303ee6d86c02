"""Pages on what a model is and where it comes from: card, files, terms and lineage."""

import json
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import STEERING
from labeling.projects.console_access import console_page, refused, show
from labeling.projects.models import Project
from training.registry.card import body_of, card_of
from training.registry.console import may_change_terms
from training.registry.drawing import draw
from training.registry.errors import TermsChanged
from training.registry.forms import TermsForm
from training.registry.graph import MOST_NODES, Graph, Node, around, graph_of
from training.registry.models import ModelVersion
from training.registry.selectors import models_of, models_visible_to
from training.registry.services import change_terms
from training.registry.terms import TERMS, accept_terms
from training.registry.verification import verify

MOST_OPENED = 50


def find_model(request: HttpRequest, project: Project, model_id: int) -> ModelVersion:
    return get_object_or_404(models_visible_to(request.user).filter(pk__in=models_of(project)), pk=model_id)


@require_safe
@console_page()
def card(request: HttpRequest, project: Project, model_id: int) -> HttpResponse:
    found = find_model(request, project, model_id)
    _, _, text = body_of(card_of(found)).partition("\n")
    return show(request, "console/registry/card.html", project, model=found, text=text)


@require_safe
@console_page()
def card_file(request: HttpRequest, project: Project, model_id: int) -> HttpResponse:
    found = find_model(request, project, model_id)
    name = f"{found.name}-{found.version}-README.md"
    return HttpResponse(
        card_of(found), content_type="text/markdown; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )  # fmt: skip


@require_safe
@console_page()
def verified(request: HttpRequest, project: Project, model_id: int) -> HttpResponse:
    found = find_model(request, project, model_id)
    checked = list(verify(found))
    is_good = not any(one.problem for one in checked)
    return show(request, "console/registry/verified.html", project, model=found, checked=checked, is_good=is_good)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def terms(request: HttpRequest, project: Project, model_id: int) -> HttpResponse:
    found = find_model(request, project, model_id)
    may = may_change_terms(request, found)
    if request.method == "POST" and not may:
        return refused(request, project)
    shown = found.terms_of
    form = TermsForm(request.POST or None, initial={name: getattr(shown, name) for name in TERMS})
    if form.is_bound and form.is_valid():
        change_terms(model=found, **form.cleaned_data)
        messages.success(request, f"The terms of {found.key} are kept.")
        return redirect("registry:detail", project.slug, found.pk)
    return show(
        request, "console/registry/terms.html", project, model=found, form=form, may=may, status=422 if form.is_bound else 200
    )


@require_POST
@console_page(to_change=STEERING)
def accept(request: HttpRequest, project: Project, model_id: int) -> HttpResponse:
    """A lead accepts a model's own terms for the project; `asked_by` is the model whose page it was."""
    found = find_model(request, project, model_id)
    try:
        accept_terms(model=found, project=project, terms_hash=request.POST.get("terms_hash", ""), accepted_by=request.user)
    except TermsChanged as error:
        messages.warning(request, f"{error}.")
    else:
        messages.success(request, f"The terms of {found.key} are accepted for this project.")
    asked_by = request.POST.get("asked_by", "")
    back = int(asked_by) if asked_by.isascii() and asked_by.isdigit() and len(asked_by) < 19 else found.pk
    return redirect(reverse("registry:detail", args=[project.slug, back]) + "#terms")


# --- lineage ------------------------------------------------------------------------------------
@require_safe
@console_page()
def lineage(request: HttpRequest, project: Project) -> HttpResponse:
    """A drawing of what leads to one thing and what follows from it, each a link, and the same as a list."""
    graph = graph_of(project)
    start = request.GET.get("of", "")
    if start and start not in graph.nodes:
        raise Http404
    if not start:  # the newest that was made here, or else any base model
        newest = max((node for node in graph.nodes.values() if node.kind == "model"), key=lambda node: int(node.pk), default=None)
        if newest is None:
            return show(request, "console/registry/lineage.html", project, start=None)
        start = newest.id
    opened = [id for id in request.GET.getlist("open") if id in graph.nodes][:MOST_OPENED]
    shown = around(graph, start, opened=opened)
    links = {node.id: _links(project, node, start, opened) for node in shown.nodes.values()}
    for id, link in links.items():
        link["before"] = json.dumps(shown.before.get(id, []))
    return show(
        request, "console/registry/lineage.html", project, start=shown.nodes[start], drawing=draw(shown, start), links=links,
        rows=_rows(shown, links), is_cut=shown.is_cut, most_nodes=MOST_NODES,
        starts=[node for node in graph.nodes.values() if node.kind in ("licence", "snapshot", "iteration")][:200],
    )  # fmt: skip


def _links(project: Project, node: Node, start: str, opened: list[str]) -> dict[str, str]:
    """`page`: of the thing itself; `here`: the lineage of it; `more`: this one with all that follows from the node."""
    address = reverse("registry:lineage", args=[project.slug])
    here = f"{address}?{urlencode({'of': node.id})}"
    pages = {
        "model": lambda: reverse("registry:detail", args=[project.slug, node.pk]),
        "run": lambda: reverse("runs:detail", args=[project.slug, node.pk]),
        "snapshot": lambda: reverse("preferences:detail", args=[project.slug, node.number]),
        "iteration": lambda: reverse("loop:detail", args=[project.slug, node.number]),
    }
    page = pages[node.kind]() if node.kind in pages else here
    more = f"{address}?{urlencode({'of': start, 'open': [*opened, node.id]}, doseq=True)}"
    return {"page": page, "here": here, "more": more}


def _rows(shown: Graph, links: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "node": node, "links": links[node.id],
            "before": [shown.nodes[id] for id in shown.before.get(node.id, ())],
            "after": [shown.nodes[id] for id in shown.after.get(node.id, ())],
        }
        for node in shown.nodes.values()
    ]  # fmt: skip
