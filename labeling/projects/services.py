"""Projects, their members and guidelines."""

import hashlib
import hmac
from collections.abc import Sequence

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.accounts.roles import Role
from labeling.live.services import notify
from labeling.projects.bench_settings import complete_bench_settings
from labeling.projects.errors import (
    BadBench,
    BadForm,
    BadQuality,
    BadSkills,
    LastLead,
    SlugTaken,
    UnknownVersion,
)
from labeling.projects.feedback import complete_form
from labeling.projects.fitting import OnMembers, alone_with_members
from labeling.projects.models import Guideline, Membership, Project
from labeling.projects.quality_settings import complete_quality_settings, quality_of
from labeling.projects.skills import checked_languages, checked_skills
from labeling.projects.text import sha256

RESERVED_SLUGS = {"new"}  # /projects/new/ is the page that makes one


def create_project(
    *,
    slug: str,
    name: str,
    created_by: User,
    description: str = "",
    form: dict | None = None,
    bench: dict | None = None,
    quality: dict | None = None,
    overlap: int = 1,
    lease_seconds: int = 1200,
    eval_share: float = 0.2,
    guideline: str = "",
) -> Project:
    """Make a project with its maker as first lead, and version 1 of the guideline if one is given.

    Raises BadForm, BadBench and BadQuality naming the wrong parts of the feedback form and of the settings, and SlugTaken.
    """
    full_form = _checked_form(form or {})
    full_bench = _checked_bench(bench or {})
    full_quality = _checked_quality(quality or {})
    if slug in RESERVED_SLUGS:
        raise SlugTaken(f"The short name {slug!r} is an address of the site: choose another")
    project = Project(
        slug=slug, name=name, description=description, form=full_form, bench=full_bench, quality=full_quality,
        overlap=overlap, lease_seconds=lease_seconds, eval_share=eval_share, created_by=created_by,
    )  # fmt: skip
    project.full_clean(exclude=["slug"], validate_unique=False)
    project.clean_fields()
    try:
        with transaction.atomic():
            project.save()
            add_member(project=project, user=created_by, role=Role.LEAD)
            if guideline.strip():
                publish_guideline(project=project, markdown=guideline, created_by=created_by)
    except IntegrityError:
        raise SlugTaken(f"There is already a project with the short name {slug!r}") from None
    return project


def change_project(*, project: Project, **changes: object) -> Project:
    """Change name, description, form, bench, quality, overlap, lease_seconds, state, allows_revision or eval_share.

    Where the qualification round is switched off, whoever is in it is let in.

    Raises BadForm, BadBench, BadQuality, and ValidationError naming the field.
    """
    if "form" in changes:
        changes["form"] = _checked_form(changes["form"])
    if "bench" in changes:
        changes["bench"] = _checked_bench(changes["bench"])
    if "quality" in changes:
        changes["quality"] = _checked_quality(changes["quality"])
    for name, value in changes.items():
        setattr(project, name, value)
    project.full_clean(validate_unique=False)
    with transaction.atomic():
        project.save(update_fields=list(changes))
        if "quality" in changes and not project.quality["qualification"]["n"]:
            project.memberships.filter(state=Membership.State.QUALIFYING).update(
                state=Membership.State.ACTIVE, state_reason="", state_at=now()
            )
        notify(project.live_group, "project")
    return project


def _checked_form(form: object) -> dict:
    full, wrong = complete_form(form)  # type: ignore[arg-type]
    if wrong:
        raise BadForm(wrong)
    return full


def _checked_bench(settings: object) -> dict:
    full, wrong = complete_bench_settings(settings)
    if wrong:
        raise BadBench(wrong)
    return full


def _checked_quality(settings: object) -> dict:
    full, wrong = complete_quality_settings(settings)
    if wrong:
        raise BadQuality(wrong)
    return full


def agree_to_warning(*, membership: Membership) -> None:
    """The person has read the project's content warning, as it stands, and wants to go on."""
    membership.agreed_to = sha256(membership.project.bench["content_warning"])
    membership.save(update_fields=["agreed_to"])


def read_guideline(*, membership: Membership, version: int) -> int:
    """The person has read this version. Returns the newest they have read; an older one takes nothing back.

    Raises UnknownVersion.
    """
    if not Guideline.objects.filter(project=membership.project_id, version=version).exists():
        raise UnknownVersion(f"The guideline has no version {version}")
    Membership.objects.filter(pk=membership.pk, guideline_read__lt=version).update(guideline_read=version)
    membership.refresh_from_db(fields=["guideline_read"])
    return membership.guideline_read


def pseudonym_of(project: Project, user: User) -> str:
    """A name for exports that only this installation's key can lead back to the person."""
    digest = hmac.new(settings.PSEUDONYM_KEY.encode(), f"{project.pk}:{user.pk}".encode(), hashlib.sha256)
    return f"annotator-{digest.hexdigest()[:10]}"


def add_member(
    *,
    project: Project,
    user: User,
    role: str,
    languages: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
) -> Membership:
    """Give the person this role in the project, changing the role they had, and with it what they know (None: as it was).

    A new annotator begins with the project's qualification round, where it has one; other roles need none.

    Raises LastLead where that would leave the project without one, and BadSkills.
    """
    known = checked_knowledge(languages=languages, skills=skills)
    with transaction.atomic():
        alone_with_members(project)
        if role != Role.LEAD:
            _refuse_leaving_no_lead(project, user)
        first = {"role": role, "pseudonym": pseudonym_of(project, user), **known}
        if role == Role.ANNOTATOR and quality_of(project.quality)["qualification"]["n"]:
            first |= {"state": Membership.State.QUALIFYING, "state_at": now()}
        membership, _ = Membership.objects.update_or_create(
            project=project, user=user, defaults={"role": role, **known}, create_defaults=first
        )
        if role != Role.ANNOTATOR and membership.state == Membership.State.QUALIFYING:
            membership.state, membership.state_at = Membership.State.ACTIVE, now()
            membership.save(update_fields=["state", "state_at"])
        OnMembers.changed(project, [user.pk])
        notify(project.live_group, "members")
    return membership


def change_member(*, membership: Membership, **changes: object) -> Membership:
    """Change the languages or skills of somebody who is in the project. Raises BadSkills."""
    known = checked_knowledge(**changes)
    project = membership.project
    with transaction.atomic():
        alone_with_members(project)
        for name, value in known.items():
            setattr(membership, name, value)
        membership.save(update_fields=list(known))
        OnMembers.changed(project, [membership.user_id])
        notify(project.live_group, "members")
    return membership


def checked_knowledge(*, languages: object = None, skills: object = None) -> dict[str, list[str]]:
    """As they are kept; what is None is left out. Raises BadSkills."""
    found = {
        name: check(items)
        for name, items, check in (("languages", languages, checked_languages), ("skills", skills, checked_skills))
        if items is not None
    }
    if wrong := {name: problem for name, (_, problem) in found.items() if problem}:
        raise BadSkills(wrong)
    return {name: items for name, (items, _) in found.items()}


def remove_member(*, project: Project, user: User) -> None:
    """Take the person out; their judgements stay, under the pseudonym. Raises LastLead."""
    with transaction.atomic():
        _refuse_leaving_no_lead(project, user)
        Membership.objects.filter(project=project, user=user).delete()
        notify(project.live_group, "members")


def _refuse_leaving_no_lead(project: Project, leaving: User) -> None:
    leads = set(project.memberships.filter(role=Role.LEAD).values_list("user_id", flat=True))
    if leads == {leaving.pk}:
        raise LastLead("A project needs a lead: make someone else lead first")


def publish_guideline(*, project: Project, markdown: str, created_by: User | None) -> Guideline:
    """Add the next version; the same text again gives the version there is."""
    with transaction.atomic():
        latest = project.guidelines.order_by("-version").first()
        if latest and latest.markdown == markdown:
            return latest
        version = (project.guidelines.aggregate(top=Max("version"))["top"] or 0) + 1
        guideline = Guideline.objects.create(project=project, version=version, markdown=markdown, created_by=created_by)
        project.guideline = guideline
        project.save(update_fields=["guideline"])
        notify(project.live_group, "guideline", version=version)
    return guideline
