"""What the bench shows: turns of the prompt, cards with what is filled in already, the figures above them."""

import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Exists, OuterRef
from django.urls import reverse

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Lease, Slot, Task
from labeling.annotation.selectors import own_figures, shown_completions
from labeling.projects.models import Guideline, Project

MOST_COUNTED = 500
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
VERDICTS = (
    ("much better", 3),
    ("better", 2),
    ("slightly", 1),
)


@dataclass(frozen=True)
class Figures:
    """One annotator's day in one project, and what is left for them. `n_left` counts to 500 and no further."""

    n_today: int
    seconds_median: float | None
    n_left: int

    @property
    def has_more(self) -> bool:
        return self.n_left >= MOST_COUNTED


def n_tasks_left(user: User, project: Project) -> int:
    """Tasks that the person holds, or could still be given; counting stops at 500."""
    leases = Lease.objects.filter(annotator=user)
    closed = [Lease.State.OPEN, Lease.State.DONE, Lease.State.SKIPPED]
    theirs = leases.filter(task=OuterRef("task"), state__in=closed)
    free = Slot.objects.filter(~Exists(theirs), project=project, state=Slot.State.FREE).exclude(
        task__state=Task.State.CLOSED
    )
    n_held = leases.filter(task__project=project, state=Lease.State.OPEN).count()
    return min(n_held + free.order_by().values("task").distinct()[:MOST_COUNTED].count(), MOST_COUNTED)


def figures_of(user: User, project: Project) -> Figures:
    own = own_figures(user, project)
    return Figures(own.n_today, own.seconds_median, n_tasks_left(user, project))


@dataclass(frozen=True)
class Turn:
    speaker: str
    role: str
    content: str


@dataclass(frozen=True)
class Scale:
    """One rating axis of one card."""

    axis: str
    values: range
    value: int | None


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


@dataclass(frozen=True)
class Verdict:
    """One step of the scale between two completions: key on the keyboard, words, ranks, strength."""

    key: str
    words: str
    rank_a: int
    rank_b: int
    strength: int | None


@dataclass
class Bench:
    """One task on the bench, to be judged or, with `judgement`, to be judged again."""

    lease: Lease
    filled: dict[str, Any]
    judgement: Judgement | None = None
    errors: dict[str, str] = field(default_factory=dict)
    submission_key: str = field(default_factory=lambda: secrets.token_hex(16))

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
        return "pair" if self.is_pair else "tiers" if self.form["ranking"] else "rating"

    @property
    def may_submit(self) -> bool:
        return self.judgement is None or self.project.allows_revision

    @property
    def submit_url(self) -> str:
        slug = self.project.slug
        if self.judgement:
            return reverse("annotation:revise", args=[slug, self.judgement.pk])
        return reverse("annotation:submit", args=[slug, self.lease.pk])

    @property
    def turns(self) -> list[Turn]:
        return [
            Turn(SPEAKERS.get(message["role"], message["role"]), message["role"], message["content"])
            for message in self.lease.task.prompt.messages
        ]

    @property
    def guideline(self) -> Guideline | None:
        return self.lease.guideline

    @property
    def guideline_gist(self) -> str:
        """The guideline's first words, for the folded line."""
        text = self.guideline.markdown if self.guideline else ""
        return re.sub(r"[#*_`>\[\]|]+", "", " ".join(text.split()[:24])).strip()[:110]

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
                    Scale(axis, range(ends["low"], ends["high"] + 1), self._rating(shown.key, axis))
                    for axis, ends in self.form["ratings"].items()
                ],
                correction=_part(filled, "corrections", dict).get(shown.key) or "",
            )
            for shown in shown_completions(self.lease)
        ]

    @property
    def ranks(self) -> range:
        return range(1, len(self.lease.order_shown) + 1)

    @property
    def verdicts(self) -> list[Verdict]:
        """From a is better to b is better; seven steps if the form asks for strength, else three."""
        steps = VERDICTS if self.form["strength"] else (("better", None),)
        found = [(f"a {words}", 1, 2, strength) for words, strength in steps]
        if self.form["ties"]:
            found.append(("equal", 1, 1, None))
        found += [(f"b {words}", 2, 1, strength) for words, strength in reversed(steps)]
        return [Verdict(str(number), *verdict) for number, verdict in enumerate(found, 1)]

    @property
    def guideline_key(self) -> str:
        """g, unless a completion has that letter."""
        return "g" if len(self.lease.order_shown) < 7 else "l"

    @property
    def edit_key(self) -> str:
        """e, unless a completion has that letter."""
        return "e" if len(self.lease.order_shown) < 5 else "v"

    @property
    def strengths(self) -> list[tuple[int, str]]:
        return [(1, "slightly"), (2, "better"), (3, "much better")]

    @property
    def one_key_decides(self) -> bool:
        """The verdict alone answers the whole form, so its key may submit as well."""
        form = self.form
        asks_more = form["acceptable"] or form["flags"] or form["ratings"] or form["corrections"]
        return self.is_pair and form["rationale"] == "off" and not asks_more and not self.judgement

    def _ranks(self) -> dict[str, int]:
        rows = _part(self.filled, "ranking", list)
        return {key: number for number, row in enumerate(rows, 1) if isinstance(row, list) for key in row}

    def _rating(self, key: str, axis: str) -> int | None:
        found = _part(self.filled, "ratings", dict).get(key)
        return found.get(axis) if isinstance(found, dict) else None


def _part(filled: dict[str, Any], name: str, kind: type) -> Any:
    """A part of a draft. Drafts also come in over REST, unchecked, so anything odd counts as empty."""
    value = filled.get(name) if isinstance(filled, dict) else None
    return value if isinstance(value, kind) else kind()
