"""Tasks, their slots, leases on slots, and judgements.

A task that wants k judgements has k slots. A lease holds one slot for one annotator for a while. The unique
constraints below, not the Python, make overlap exact: no slot and no annotator can count twice for a task.
"""

import secrets
from functools import cached_property

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from labeling.projects.feedback import PER_COMPLETION
from labeling.projects.models import Completion, Guideline, Project, Prompt


def new_public_id() -> str:
    """Random, so that ids tell annotators nothing about a task's age or kind."""
    return secrets.token_hex(8)


class Pool(models.Model):
    """Who may be given certain tasks: the people named, or everyone who has these languages and skills."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="pools")
    name = models.CharField(max_length=120)
    languages = models.JSONField(default=list, help_text="all of them are needed")
    skills = models.JSONField(default=list, help_text="all of them are needed")
    people = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="+", help_text="none named: anyone fit")
    is_named = models.BooleanField(default=False, help_text="for the people named alone")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="pool_name_once_a_project")]

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    class State(models.TextChoices):
        OPEN = "open", "open"
        DONE = "done", "done"
        CLOSED = "closed", "closed"

    class Purpose(models.TextChoices):
        PREFERENCE = "preference", "preference data"
        EVALUATION = "evaluation", "comparing policies"
        GOLD = "gold", "checking annotators"
        REPEAT = "repeat", "checking one annotator against themselves"

    COLLECTED = (Purpose.PREFERENCE, Purpose.EVALUATION)  # what was judged for the data; the others check annotators
    CONVERSATION = "conversation"  # the kind of a task that is a turn of a live conversation

    public_id = models.CharField(max_length=32, unique=True, default=new_public_id)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="tasks")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="tasks")
    completions = models.ManyToManyField(Completion, through="TaskCompletion", related_name="tasks")
    kind = models.CharField(max_length=20, default="ranking")
    purpose = models.CharField(max_length=12, choices=Purpose.choices, default=Purpose.PREFERENCE)
    overlap = models.PositiveSmallIntegerField()
    priority = models.IntegerField(default=0, help_text="higher first")
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    n_judged = models.PositiveSmallIntegerField(default=0)
    pool = models.ForeignKey(Pool, null=True, on_delete=models.RESTRICT, related_name="tasks", help_text="null: everyone")
    repeats = models.ForeignKey(
        "self", null=True, on_delete=models.CASCADE, related_name="repeated_by", help_text="shown again to one person"
    )
    iteration = models.PositiveIntegerField(default=1, help_text="number of the project's iteration")
    content_hash = models.CharField(max_length=64, help_text="of prompt, completions, purpose and iteration")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="task_once"),
            models.CheckConstraint(condition=Q(overlap__gte=1), name="task_overlap_at_least_one"),
        ]
        indexes = [
            models.Index(fields=["project", "state", "iteration"]),
            models.Index(fields=["project", "purpose"], name="task_by_purpose"),
        ]

    def __str__(self) -> str:
        return f"task {self.public_id}"

    @property
    def is_gold(self) -> bool:
        return self.purpose == self.Purpose.GOLD


class TaskCompletion(models.Model):
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="task_completions")
    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "completion"], name="completion_once_a_task")]

    def __str__(self) -> str:
        return f"completion {self.completion_id} of task {self.task_id}"


class Slot(models.Model):
    """One of the judgements that a task wants."""

    class State(models.TextChoices):
        FREE = "free", "free"
        LEASED = "leased", "leased"
        DONE = "done", "done"
        VOID = "void", "set aside"  # its judgement does not count, and another slot was added for it

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="slots")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+", db_index=False)
    pool = models.ForeignKey(
        Pool, null=True, on_delete=models.RESTRICT, related_name="+", db_index=False, help_text="the task's"
    )
    number = models.PositiveSmallIntegerField()
    position = models.BigIntegerField(null=True, help_text="place in the queue, see queue.py; null: not in it")
    state = models.CharField(max_length=8, choices=State.choices, default=State.FREE)
    expires_at = models.DateTimeField(null=True)
    holder = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "number"], name="slot_number_once_a_task")]
        indexes = [
            # The queue: the next free slot of a project is one step into this index, whatever its size. No other index
            # may serve to find a project's free slots: of a new project, of which it has no statistics, PostgreSQL
            # expects so few that reading and sorting them all by another one looks as good to it.
            models.Index(fields=["project", "pool", "position", "id"], condition=Q(state="free"), name="slot_in_queue"),
            models.Index(fields=["project"], condition=Q(state="leased"), name="slot_leased"),
            models.Index(fields=["expires_at"], condition=Q(state="leased"), name="slot_expiry"),
        ]

    def __str__(self) -> str:
        return f"slot {self.number} of task {self.task_id}"


class Lease(models.Model):
    class State(models.TextChoices):
        OPEN = "open", "open"
        DONE = "done", "done"
        EXPIRED = "expired", "expired"
        SKIPPED = "skipped", "skipped"

    class SkipReason(models.TextChoices):
        UNCLEAR = "unclear", _("I don't understand the prompt")
        NEEDS_EXPERT = "needs_expert", _("It needs an expert")
        NOT_RANKABLE = "not_rankable", _("The completions can't be compared")
        BROKEN = "broken", _("A text is broken or cut off")
        RATHER_NOT = "rather_not", _("I'd rather not read this")

    slot = models.ForeignKey(Slot, on_delete=models.CASCADE, related_name="leases")
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="leases")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="leases")
    guideline = models.ForeignKey(Guideline, null=True, on_delete=models.PROTECT, related_name="+")
    order_shown = models.JSONField(help_text="completion ids in the random order shown; the first is key a")
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    expires_at = models.DateTimeField()
    draft = models.JSONField(null=True)
    skip_reason = models.CharField(max_length=20, blank=True, choices=SkipReason.choices)
    skip_note = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            # A person holds, has judged or has passed over a task once. An expired lease may be followed by another.
            models.UniqueConstraint(
                fields=["task", "annotator"],
                condition=Q(state__in=["open", "done", "skipped"]),
                name="one_lease_a_task_and_annotator",
            ),
            models.UniqueConstraint(fields=["slot"], condition=Q(state="open"), name="one_open_lease_a_slot"),
        ]
        indexes = [models.Index(fields=["annotator", "state"])]

    def __str__(self) -> str:
        return f"lease {self.pk}"

    @property
    def may_be_answered(self) -> bool:
        """Whether a judgement would be taken: in time or late, but not after another, nor after a skip."""
        return self.state in (self.State.OPEN, self.State.EXPIRED)

    @cached_property
    def texts(self) -> dict[int, str]:
        """The completions of the task: id to text."""
        return dict(self.task.completions.values_list("pk", "content"))


class Judgements(models.QuerySet["Judgement"]):
    def current(self) -> "Judgements":
        """Those that no newer one supersedes."""
        # Not `superseded_by=None`, of whose join PostgreSQL expects no rows at all, and so reads other tables row by row.
        return self.filter(~models.Exists(Judgement.objects.filter(supersedes=models.OuterRef("pk"))))


class Judgement(models.Model):
    """What one annotator submitted. Rows are only ever added: a revision is a new row that supersedes the old.

    The database itself refuses an UPDATE (migration 0002).
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="judgements")
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="judgements")
    slot = models.ForeignKey(
        Slot, null=True, on_delete=models.CASCADE, related_name="judgements", help_text="null: surplus"
    )
    lease = models.ForeignKey(Lease, on_delete=models.CASCADE, related_name="judgements")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="judgements")
    annotator_kind = models.CharField(max_length=12)
    guideline = models.ForeignKey(Guideline, null=True, on_delete=models.PROTECT, related_name="+")
    submission_key = models.CharField(max_length=80)
    body_hash = models.CharField(max_length=64)
    order_shown = models.JSONField(help_text="completion ids in the order shown")
    ranking = models.JSONField(help_text="completion ids, best first, ties in one inner list; [] if none was asked for")
    feedback = models.JSONField(default=dict, help_text="the other parts, completions named by id")
    seconds = models.FloatField(null=True)
    supersedes = models.OneToOneField("self", null=True, on_delete=models.PROTECT, related_name="superseded_by")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = Judgements.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["annotator", "submission_key"], name="submission_key_once"),
            models.UniqueConstraint(
                fields=["slot"], condition=Q(supersedes=None, slot__isnull=False), name="one_judgement_a_slot"
            ),
            models.UniqueConstraint(
                fields=["task", "annotator"],
                condition=Q(supersedes=None),
                name="one_judgement_a_task_and_annotator",
            ),
        ]
        indexes = [
            models.Index(fields=["project", "created_at"]),
            models.Index(fields=["annotator", "created_at"]),
            models.Index(fields=["annotator", "id"], name="judgement_of_person"),
        ]

    def __str__(self) -> str:
        return f"judgement {self.pk}"

    @property
    def is_surplus(self) -> bool:
        return self.slot_id is None

    @property
    def key_order(self) -> list[int]:
        """Completion ids in the order of the keys that name them: that shown, or any where an import doesn't know it."""
        named = {pk for group in self.ranking for pk in group}
        named |= {int(pk) for name in PER_COMPLETION for pk in self.feedback.get(name, ())}
        return self.order_shown or sorted(named)


class SetAside(models.Model):
    """A judgement that doesn't count any more, and the slot that was opened for another in its place.

    The judgement itself stays as it is. `judgement` is the first of its revisions, all of which are set aside with it.
    """

    judgement = models.ForeignKey(Judgement, on_delete=models.CASCADE, related_name="set_aside")
    replacement = models.ForeignKey(
        Slot, null=True, on_delete=models.SET_NULL, related_name="+", help_text="null: surplus, or restored"
    )
    reason = models.CharField(max_length=300)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField()
    restored_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    restored_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["judgement"], condition=Q(restored_at=None), name="set_aside_once"),
        ]

    def __str__(self) -> str:
        return f"judgement {self.judgement_id} set aside"


class PromptReport(models.Model):
    """An annotator's word to the leads that something is wrong with a prompt."""

    class Reason(models.TextChoices):
        HARMFUL = "harmful", _("It is harmful or disturbing")
        PERSONAL_DATA = "personal_data", _("It holds personal data")
        BROKEN = "broken", _("It is broken or cut off")
        DUPLICATE = "duplicate", _("I have seen it before")
        OTHER = "other", _("Something else")

    class State(models.TextChoices):
        OPEN = "open", "open"
        KEPT = "kept", "prompt kept"
        CLOSED_TASKS = "closed_tasks", "tasks closed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompt_reports")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="reports")
    reporter = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    reason = models.CharField(max_length=20, choices=Reason.choices)
    note = models.CharField(max_length=2000, blank=True)
    state = models.CharField(max_length=12, choices=State.choices, default=State.OPEN)
    settled_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    settled_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["prompt", "reporter"], name="one_report_a_prompt_and_person")]
        indexes = [models.Index(fields=["project", "state"])]

    def __str__(self) -> str:
        return f"report of prompt {self.prompt_id}"
