"""The page on features: what is encoded, by which layer, and how that was chosen."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST

from labeling.accounts.models import User
from labeling.accounts.roles import TRAINING
from labeling.projects.console_access import add_errors, console_page, show
from labeling.projects.models import Project
from training.features import services
from training.features.errors import BadEncoder, NothingToEncode
from training.features.forms import EncoderForm, MeasureForm
from training.features.models import Encoder
from training.features.selectors import OPEN, encoders_visible_to, state_of
from training.runs.errors import BadSpec
from training.runs.models import Run
from training.runs.services import create_run

MOST_ENCODERS = 30


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def features(request: HttpRequest, project: Project) -> HttpResponse:
    """`do` is enter, use, stop, delete (with `encoder`), encode or halt."""
    if request.method != "POST":
        return _page(request, project)
    do = request.POST.get("do", "")
    if do == "enter":
        form = EncoderForm(request.POST, project=project)
        if form.is_valid():
            try:
                services.create_encoder(project=project, created_by=request.user, **form.cleaned_data)
            except BadEncoder as error:
                add_errors(form, error.fields)
            else:
                return redirect("features:detail", project.slug)
        return _page(request, project, encoder_form=form, status=422)
    try:
        _act(request.user, project, do, request.POST.get("encoder", ""))
    except (BadEncoder, NothingToEncode) as error:
        messages.warning(request, str(error))
    return redirect("features:detail", project.slug)


def _act(user: User, project: Project, do: str, named: str) -> None:
    if do == "encode":
        services.start_encoding(project=project, created_by=user)
    elif do == "halt":
        services.stop_encoding(project=project)
    elif do in ("use", "stop", "delete"):
        encoder = get_object_or_404(Encoder, project=project, pk=int(named) if named.isdigit() and len(named) < 19 else 0)
        if do == "use":
            services.use_encoder(encoder=encoder, by=user)
        elif do == "stop":
            services.stop_encoder(encoder=encoder)
        else:
            services.delete_encoder(encoder=encoder)


@require_POST
@console_page(to_change=TRAINING)
def measure(request: HttpRequest, project: Project) -> HttpResponse:
    form = MeasureForm(request.POST, project=project)
    if form.is_valid():
        try:
            run = create_run(
                project=project, kind="layers", created_by=request.user, model=form.cleaned_data["model"],
                snapshot=form.cleaned_data["snapshot"], spec={"max_pairs": form.cleaned_data["max_pairs"]},
            )  # fmt: skip
        except BadSpec as error:
            add_errors(form, error.fields)
        else:
            return redirect("runs:detail", project.slug, run.pk)
    return _page(request, project, measure_form=form, status=422)


def _page(
    request: HttpRequest, project: Project, *, measure_form: MeasureForm | None = None,
    encoder_form: EncoderForm | None = None, status: int = 200,
) -> HttpResponse:  # fmt: skip
    state = state_of(project)
    encoders = list(encoders_visible_to(request.user).filter(project=project).order_by("-is_active", "-pk")[:MOST_ENCODERS])
    shown = state.encoder if state.encoder and state.encoder.evidence else next((one for one in encoders if one.evidence), None)
    measuring = Run.objects.filter(project=project, kind="layers", state__in=OPEN).order_by("-pk").first()
    return show(
        request, "console/features/detail.html", project, state=state, encoders=encoders, shown=shown,
        plot=plot_of(shown) if shown else None, measuring=measuring, status=status,
        measure_form=measure_form or MeasureForm(project=project), encoder_form=encoder_form or EncoderForm(project=project),
    )  # fmt: skip


def plot_of(encoder: Encoder) -> dict[str, Any]:
    """Accuracy by layer of both poolings, each with the bounds of its 95 % interval, as `charts.js` reads it."""
    measured = encoder.evidence["layers"]
    series = []
    for colour, (pooling, label) in enumerate(Encoder.Pooling.choices):
        rows = [row for row in measured if row["pooling"] == pooling]
        for bound in ("value", "low", "high"):
            points = [[str(row["layer"]), row["accuracy"][bound]] for row in rows]
            name = label if bound == "value" else f"{label}, {bound} end"
            series.append({"label": name, "points": points, "colour": colour, "isBound": bound != "value"})
    panel = {
        "key": "layers", "title": "Held-out pairs that are ordered rightly", "unit": "share", "kind": "line", "series": series,
    }  # fmt: skip
    return {"x": {"unit": "layer", "kind": "names"}, "panels": [panel]}
