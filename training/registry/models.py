from pathlib import PurePath

from django.conf import settings
from django.db import models
from django.db.models import Q

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project


class ModelVersion(models.Model):
    """One model one can sample from, score with or train on: a base model or what a run made of it."""

    class Kind(models.TextChoices):
        BASE = "base", "base model"
        POLICY = "policy", "policy"
        REWARD = "reward", "reward model"
        GGUF = "gguf", "GGUF file"  # for serving alone: no run starts from it

    class Stage(models.TextChoices):
        CANDIDATE = "candidate", "candidate"
        PRODUCTION = "production", "production"
        ARCHIVED = "archived", "archived"

    key = models.CharField(max_length=120, unique=True, help_text="name@version, such as smollm2-135m@3")
    name = models.CharField(max_length=100)
    version = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    stage = models.CharField(max_length=12, choices=Stage.choices, default=Stage.CANDIDATE)
    project = models.ForeignKey(
        Project,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="models",
        help_text="empty: for all",
    )
    base = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="derived")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="children")
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="models")
    folder = models.CharField(max_length=300, help_text="weights (or adapter, or head) below PREFLOOP_HOME")
    is_adapter = models.BooleanField(default=False)
    licence = models.CharField(max_length=80, blank=True)
    licence_url = models.CharField(max_length=300, blank=True, help_text="where the licence or the terms can be read")
    fee_due = models.BooleanField(default=False, help_text="using it costs a fee, or does so in some cases")
    acceptance_due = models.BooleanField(default=False, help_text="its maker asks that somebody accepts the terms first")
    output_restrictions = models.TextField(blank=True, help_text="what its terms say of the completions it writes")
    terms_are_of_sources = models.BooleanField(
        default=False, help_text="its terms were put together from those of what it was made of"
    )
    source = models.CharField(max_length=200, blank=True)
    files = models.JSONField(default=dict, help_text="SHA-256 of each file")
    metrics = models.JSONField(default=dict)
    lineage = models.JSONField(default=dict, help_text="run, snapshot hash, configuration, code and library versions")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "version"], name="model_version_once"),
            models.UniqueConstraint(
                fields=["project", "kind"],
                condition=Q(stage="production", project__isnull=False),
                name="one_in_production_a_project_and_kind",
            ),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def has_terms(self) -> bool:
        """Whether anything beyond the licence's name was entered of this very row."""
        return bool(self.licence_url or self.fee_due or self.acceptance_due or self.output_restrictions)

    @property
    def terms_of(self) -> "ModelVersion":
        """Whose terms hold: its own where it has some, else those of the base model it was made of."""
        return self if self.has_terms or self.base is None else self.base.terms_of

    @property
    def root(self) -> "ModelVersion":
        """The base model that it goes back to."""
        return self if self.base is None else self.base.root

    @property
    def terms_ask(self) -> bool:
        """Whether its terms ask something of whoever uses it."""
        return self.terms_of.asks

    @property
    def asks(self) -> bool:
        """Whether what was entered of this very row asks something."""
        return self.fee_due or self.acceptance_due or bool(self.output_restrictions)


class StageChange(models.Model):
    """Who moved a model to another stage, and why."""

    model = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="stage_changes")
    from_stage = models.CharField(max_length=12)
    to_stage = models.CharField(max_length=12)
    reason = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.model}: {self.from_stage} to {self.to_stage}"


class TermsAcceptance(models.Model):
    """Who accepted a model's terms for a project, and which: other terms have another hash, and are asked about again."""

    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="acceptances")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="accepted_terms")
    terms_hash = models.CharField(max_length=64, help_text="SHA-256 of `terms`, as canonical JSON")
    terms = models.JSONField(help_text="what was accepted, as it was shown")
    accepted_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    accepted_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "model", "terms_hash"], name="terms_accepted_once"),
        ]

    def __str__(self) -> str:
        return f"{self.model} for {self.project}"


class ModelImport(models.Model):
    """A model from elsewhere being taken in by a worker. One killed on the way leaves it to be started again.

    Whoever holds (`owner`, `epoch`) may write; each new owner raises the epoch, so a stale one writes nothing.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "waiting"
        WORKING = "working", "working"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    ENDED = (State.DONE, State.FAILED, State.CANCELLED)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="model_imports")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    status_text = models.CharField(max_length=200, blank=True)
    source_folder = models.CharField(max_length=500, blank=True, help_text="on the server; empty: an archive was sent")
    filename = models.CharField(max_length=200, blank=True, help_text="what the archive was called outside")
    sha256 = models.CharField(max_length=64, blank=True, help_text="of the archive")
    wanted = models.JSONField(default=dict, help_text="name, kind, licence, terms and the like, as they were asked for")
    base = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL, related_name="+")
    model = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL, related_name="imports")
    problem = models.TextField(blank=True)
    n_done = models.BigIntegerField(default=0, help_text="bytes that were unpacked or copied")
    n_total = models.BigIntegerField(default=0, help_text="bytes of the archive or folder")
    owner = models.CharField(max_length=120, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    enqueued_at = models.DateTimeField(null=True, help_text="when a worker was last woken for it")
    cancel_requested_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["state", "heartbeat_at"]), models.Index(fields=["project", "-id"])]

    def __str__(self) -> str:
        return f"import of a model {self.pk}"

    @property
    def is_over(self) -> bool:
        return self.state in self.ENDED

    @property
    def folder_name(self) -> str:
        return PurePath(self.source_folder).name or "an archive"

    @property
    def share(self) -> float:
        """Of the bytes, 0 to 1; what comes out of an archive may be more than it has."""
        return min(1.0, self.n_done / self.n_total) if self.n_total else 0.0
