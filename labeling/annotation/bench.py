"""What the bench shows: turns of the prompt, cards with what is filled in already, the figures above them."""

import re
import secrets
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Lease
from labeling.annotation.queue import free_for
from labeling.annotation.selectors import (
    ShownCompletion,
    member_at_work,
    own_figures,
    shown_completions,
    shown_messages,
)
from labeling.annotation.services.mixing import mixes_in, n_left_to_qualify
from labeling.projects.feedback import PER_COMPLETION, may_be_empty
from labeling.projects.models import Guideline, Membership, Project

MOST_COUNTED = 500
SPEAKERS = {
    "system": gettext_lazy("System"),
    "user": gettext_lazy("User"),
    "assistant": gettext_lazy("Assistant"),
}
A_BETTER = (
    (gettext_lazy("a much better"), 3),
    (gettext_lazy("a better"), 2),
    (gettext_lazy("a slightly"), 1),
)
B_BETTER = (
    (gettext_lazy("b slightly"), 1),
    (gettext_lazy("b better"), 2),
    (gettext_lazy("b much better"), 3),
)


@dataclass(frozen=True)
class Figures:
    """One annotator's day in one project, and what is left for them. `n_left` counts to 500 and no further.

    `is_rough`: it is at most `n_left`, see `n_tasks_left`.
    """

    n_today: int
    seconds_median: float | None
    n_left: int
    is_rough: bool = False

    @property
    def has_more(self) -> bool:
        return self.n_left >= MOST_COUNTED


def n_tasks_left(user: User, project: Project) -> int:
    """Tasks that the person holds, or could still be given; counting stops at 500.

    Where tasks are mixed in that the queue doesn't hold, the number is rounded up to tens: an exact one would stand
    still when such a task is given.
    """
    return _tasks_left(user, project)[0]


def _tasks_left(user: User, project: Project) -> tuple[int, bool]:
    """The number, and whether it was rounded."""
    member = member_at_work(user, project)
    if member is None:
        return 0, False
    if member.state == Membership.State.QUALIFYING:
        return n_left_to_qualify(member), False
    if member.state == Membership.State.PAUSED:
        return member.n_open, False
    n_free = free_for(member).order_by().values("task").distinct()[:MOST_COUNTED].count()
    n_left = min(member.n_open + n_free, MOST_COUNTED)
    return (-(-n_left // 10) * 10, True) if mixes_in(project) else (n_left, False)


def figures_of(user: User, project: Project) -> Figures:
    own = own_figures(user, project)
    n_left, is_rough = _tasks_left(user, project)
    return Figures(own.n_today, own.seconds_median, n_left, is_rough)


@dataclass(frozen=True)
class Turn:
    speaker: str | Promise
    role: str
    content: str
    is_folded: bool = False


@dataclass(frozen=True)
class Step:
    """One step of a rating scale, with the lead's word for it if there is one."""

    value: int
    label: str


@dataclass(frozen=True)
class Scale:
    """One rating axis of one card."""

    axis: str
    steps: list[Step]
    value: int | None
    help: str

    @property
    def ends(self) -> str:
        """What the lowest and the highest step mean, if the lead said so."""
        said = [f"{step.value} {step.label}" for step in self.steps if step.label]
        return " · ".join(said)


@dataclass(frozen=True)
class Card:
    """A completion as the annotator may see it, with what they filled in so far. Never its id or model."""

    key: str
    content: str
    rank: int | None
    acceptable: bool | None
    flags: list[str]
    scales: list[Scale]
    correction: str
    marks: list[dict[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """One step of the scale between two completions: key on the keyboard, words, ranks, strength."""

    key: str
    words: str | Promise
    rank_a: int
    rank_b: int
    strength: int | None
    none_acceptable: bool = False


@dataclass
class Bench:
    """One task on the bench, to be judged or, with `judgement`, to be judged again."""

    lease: Lease
    filled: dict[str, Any]
    judgement: Judgement | None = None
    errors: dict[str, str] = field(default_factory=dict)
    submission_key: str = field(default_factory=lambda: secrets.token_hex(16))
    side_template = ""  # what another page puts below the reason
    actions_template = ""  # and among the actions

    @property
    def project(self) -> Project:
        return self.lease.task.project

    @property
    def form(self) -> dict[str, Any]:
        return self.project.form

    @property
    def is_pair(self) -> bool:
        return len(self.lease.order_shown) == 2 and self.form["ranking"]

    @property
    def layout(self) -> str:
        """How the completions are laid out: two side by side, tiers, one below the other, or only a place to write."""
        if self.is_pair:
            return "pair"
        n = len(self.lease.order_shown)
        return "writing" if n == 0 else "tiers" if self.ranks_completions else "rating"

    @property
    def ranks_completions(self) -> bool:
        return self.form["ranking"] and len(self.lease.order_shown) > 1

    @property
    def has_parts(self) -> bool:
        """Whether something is asked about each completion beside its rank."""
        return any(self.form[part] for part in PER_COMPLETION)

    @property
    def may_be_empty(self) -> bool:
        return may_be_empty(self.form)

    @property
    def may_submit(self) -> bool:
        return self.judgement is None or self.project.allows_revision

    @property
    def is_leased(self) -> bool:
        """Whether it can be skipped, reported and kept as a draft."""
        return self.judgement is None

    @property
    def submit_words(self) -> str:
        return _("Replace") if self.judgement else _("Submit")

    @property
    def submit_url(self) -> str:
        slug = self.project.slug
        if self.judgement:
            return reverse("annotation:revise", args=[slug, self.judgement.pk])
        return reverse("annotation:submit", args=[slug, self.lease.pk])

    @property
    def turns(self) -> list[Turn]:
        """The prompt's messages as the project shows them; a hidden system prompt is not there at all."""
        messages = shown_messages(self.lease)
        fold = self.project.bench["fold_turns"]
        # Of a long conversation the first message and the last ones stay open: what it is about, what it came to.
        n_folded = max(0, len(messages) - fold - 1) if fold else 0
        return [
            Turn(
                SPEAKERS.get(message["role"], message["role"]), message["role"], message["content"],
                is_folded=0 < index <= n_folded,
            )
            for index, message in enumerate(messages)
        ]  # fmt: skip

    @property
    def turn_groups(self) -> list[tuple[bool, list[Turn]]]:
        """Turns in their order, those that are folded in a group of their own."""
        return [(folded, list(turns)) for folded, turns in groupby(self.turns, key=lambda turn: turn.is_folded)]

    @property
    def guideline(self) -> Guideline | None:
        return self.lease.guideline

    @property
    def guideline_gist(self) -> str:
        """The guideline's first words, for the folded line."""
        text = self.guideline.markdown if self.guideline else ""
        return re.sub(r"[#*_`>\[\]|]+", "", " ".join(text.split()[:24])).strip()[:110]

    @property
    def shown(self) -> list[ShownCompletion]:
        return shown_completions(self.lease)

    @property
    def cards(self) -> list[Card]:
        filled, ranks = self.filled, self._ranks()
        return [
            Card(
                key=shown.key,
                content=shown.content,
                rank=ranks.get(shown.key),
                acceptable=_part(filled, "acceptable", dict).get(shown.key),
                flags=_part(filled, "flags", dict).get(shown.key) or [],
                scales=[
                    Scale(axis, _steps(scale), self._rating(shown.key, axis), scale.get("help", ""))
                    for axis, scale in self.form["ratings"].items()
                ],
                correction=_part(filled, "corrections", dict).get(shown.key) or "",
                marks=_part(_part(filled, "marks", dict), shown.key, list),
            )
            for shown in self.shown
        ]

    @property
    def ranks(self) -> range:
        return range(1, len(self.lease.order_shown) + 1)

    @property
    def verdicts(self) -> list[Verdict]:
        """From a is better to b is better; seven steps if the form asks for strength, else three."""
        strong = self.form["strength"]
        a_better, b_better = (A_BETTER, B_BETTER) if strong else (((_("a better"), None),), ((_("b better"), None),))
        found: list[tuple[str | Promise, int, int, int | None]] = [(words, 1, 2, step) for words, step in a_better]
        if self.form["ties"]:
            found.append((_("equal"), 1, 1, None))
        found += [(words, 2, 1, step) for words, step in b_better]
        verdicts = [Verdict(str(number), *verdict) for number, verdict in enumerate(found, 1)]
        if self.form["ties"] and self.form["none_acceptable"]:
            verdicts.append(Verdict("0", _("both bad"), 1, 1, None, none_acceptable=True))
        return verdicts

    @property
    def strengths(self) -> list[tuple[int, str]]:
        return [(1, _("slightly")), (2, _("better")), (3, _("much better"))]

    @property
    def one_key_decides(self) -> bool:
        """The verdict alone answers the whole form, so its key may submit as well."""
        form = self.form
        asks_more = any(form[part] for part in PER_COMPLETION) or form["demonstration"] != "off"
        return self.is_pair and form["rationale"] != "required" and not asks_more and not self.judgement

    def _ranks(self) -> dict[str, int]:
        rows = _part(self.filled, "ranking", list)
        return {key: number for number, row in enumerate(rows, 1) if isinstance(row, list) for key in row}

    def _rating(self, key: str, axis: str) -> int | None:
        found = _part(self.filled, "ratings", dict).get(key)
        return found.get(axis) if isinstance(found, dict) else None


def said_in(body: dict[str, Any]) -> list[str]:
    """What a judgement says beside its ranking, in a few words each."""

    def count(words: Any, n: int) -> list[str]:
        return [words % {"n": n}] if n else []

    accepted = list(body.get("acceptable", {}).values())
    said = count(ngettext_lazy("%(n)s rating", "%(n)s ratings", "n"), sum(map(len, body.get("ratings", {}).values())))
    if accepted:
        said.append(_("%(yes)s of %(all)s acceptable") % {"yes": sum(accepted), "all": len(accepted)})
    said += count(ngettext_lazy("%(n)s flag", "%(n)s flags", "n"), sum(map(len, body.get("flags", {}).values())))
    said += count(ngettext_lazy("%(n)s mark", "%(n)s marks", "n"), sum(map(len, body.get("marks", {}).values())))
    said += count(ngettext_lazy("%(n)s correction", "%(n)s corrections", "n"), len(body.get("corrections", {})))
    return [*said, _("written")] if body.get("demonstration") else said


def _steps(scale: dict[str, Any]) -> list[Step]:
    labels = scale.get("labels", {})
    return [Step(value, labels.get(str(value), "")) for value in range(scale["low"], scale["high"] + 1)]


def _part(filled: dict[str, Any], name: str, kind: type) -> Any:
    """A part of a draft. Drafts also come in over REST, unchecked, so anything odd counts as empty."""
    value = filled.get(name) if isinstance(filled, dict) else None
    return value if isinstance(value, kind) else kind()
