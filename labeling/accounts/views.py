"""One's own account: API tokens. Logging in and out are Django's own views, wired in urls.py."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.timezone import now
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from labeling.accounts.forms import TokenForm
from labeling.accounts.models import ApiToken, User
from labeling.accounts.services import create_token, revoke_token


@login_required
@require_http_methods(["GET", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """The person's projects and tokens. A new token's secret is in the answer to the POST and nowhere else."""
    memberships = list(request.user.memberships.select_related("project").order_by("project__name"))
    slugs = [(membership.project.slug, membership.project.name) for membership in memberships]
    secret, status = "", 200
    form = TokenForm(request.POST or None, slugs=slugs)
    if request.method == "POST":
        if form.is_valid():
            secret = create_token(user=request.user, **form.cleaned_data)[1]
            form = TokenForm(slugs=slugs)
        else:
            status = 422
    tokens = ApiToken.objects.filter(user=request.user, revoked_at=None).order_by("-pk")
    # A reverse relation: withdrawals belong to an app above this one.
    withdrawn = set(request.user.withdrawals.filter(undone_at=None).values_list("project", flat=True))
    for membership in memberships:
        membership.is_withdrawn = membership.project_id in withdrawn
    context = {"form": form, "tokens": tokens, "memberships": memberships, "secret": secret, "now": now()}
    return render(request, "accounts/profile.html", context, status=status)


@login_required
@require_POST
def revoke(request: HttpRequest, token_id: int) -> HttpResponse:
    token = get_object_or_404(ApiToken, pk=token_id, user=request.user)
    revoke_token(token=token)
    messages.success(request, _("%(name)s is revoked: it opens nothing any more.") % {"name": token.name})
    return redirect("accounts:profile")


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """Show the pages in this language: on this browser, and wherever else the person logs in."""
    wanted, back = request.POST.get("language", ""), request.POST.get("next", "")
    response = redirect(back if url_has_allowed_host_and_scheme(back, {request.get_host()}) else "home")
    if wanted in dict(settings.LANGUAGES):
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, wanted, max_age=365 * 86400, samesite="Lax")
        if request.user.is_authenticated:
            User.objects.filter(pk=request.user.pk).update(language=wanted)
    return response
