"""Pages on why a reward model rewarded something: asking, and what the tokens of a completion add."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods

from labeling.accounts.roles import TRAINING
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project, Prompt
from training.runs import services
from training.runs.errors import BadSpec
from training.runs.explain_form import ExplainForm
from training.runs.explaining import explanation_of, prompt_explained
from training.runs.models import Run

LEVELS = 5  # of a tint, on either side
FULL_TINT_FROM = 0.97  # the share of tokens that are paler: one loud token doesn't wash out the rest


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def explain(request: HttpRequest, project: Project) -> HttpResponse:
    """`?prompt=3` offers the completions of a stored prompt; `?model=7`, or its key, and `?completion=5&completion=6` choose."""
    stored = None
    if (id := request.GET.get("prompt", "")).isdigit() and len(id) < 19:
        stored = get_object_or_404(Prompt, project=project, pk=int(id))
    initial: dict[str, Any] = {"completion_ids": request.GET.getlist("completion")}
    form = ExplainForm(request.POST or None, project=project, stored=stored, initial=initial)
    name = request.GET.get("model", "")
    offered = form.fields["model"].queryset
    named = offered.filter(pk=int(name)) if name.isascii() and name.isdigit() and len(name) < 19 else offered.filter(key=name)
    if not form.is_bound and (chosen := named.first() or offered.first()):
        form.initial["model"] = chosen.pk
    if form.is_bound and form.is_valid():
        try:
            run = services.create_run(
                project=project, kind="explain", created_by=request.user, spec=form.spec(), inputs=form.inputs(),
                model=form.cleaned_data["model"],
            )  # fmt: skip
        except BadSpec as error:
            form.add_refusal(error.fields)
        else:
            return redirect("runs:detail", project.slug, run.pk)
    return show(
        request, "console/runs/explain.html", project, form=form, stored=stored, status=422 if form.is_bound else 200
    )


def explanation_shown(run: Run) -> dict[str, Any] | None:
    """The run's explanation as its page shows it: each piece with its tint, on one scale for all completions."""
    found = explanation_of(run)
    if found is None:
        return None
    sizes = sorted(
        abs(piece["value"]) for row in found["completions"] for piece in row["pieces"] if piece["value"] is not None
    )
    scale = sizes[int(FULL_TINT_FROM * (len(sizes) - 1))] if sizes else 0.0
    for letter, row in zip("AB", found["completions"], strict=False):
        row["letter"] = letter
        for piece in row["pieces"]:
            piece["tint"] = tint(piece["value"], scale)
            piece["shown"] = signed(piece["value"])
        for sentence in row["sentences"]:
            sentence["shown"] = signed(-sentence["effect"])
        row["explained"] = sum(piece["value"] or 0.0 for piece in row["pieces"])
        row["from_start"] = row["reward"] - row["baseline"]
    if difference := found["difference"]:
        size, deviation = abs(difference["value"]), difference["deviation"]
        found["difference"] = {**difference, "size": size, "is_unsure": deviation is not None and size < deviation}
    return {
        **found,
        "scale": scale,
        "prompt": prompt_explained(run),
        "is_exact": found["completions"][0]["method"] == "exact",
        "levels": [tint(float(level), LEVELS) for level in range(-LEVELS, LEVELS + 1)],
    }


def signed(value: float | None) -> str:
    """With its sign, in three digits after the point."""
    return "" if value is None else f"{value:+.3f}".replace("-", "−")


def tint(value: float | None, scale: float) -> str:
    """The class of a piece: `up-1` to `up-5`, `down-1` to `down-5`, `cut` where nothing was read, or none."""
    if value is None:
        return "cut"
    level = min(LEVELS, round(abs(value) / scale * LEVELS)) if scale else 0
    return f"{'up' if value > 0 else 'down'}-{level}" if level else ""
