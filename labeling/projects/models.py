from django.conf import settings
from django.db import models

from labeling.accounts.roles import Role
from labeling.projects.fields import OrderedJSONField


class Project(models.Model):
    class State(models.TextChoices):
        OPEN = "open", "open"
        PAUSED = "paused", "paused"

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    form = OrderedJSONField(default=dict, help_text="the feedback form: see labeling/projects/feedback.py")
    bench = models.JSONField(
        default=dict, help_text="how the bench shows tasks: see labeling/projects/bench_settings.py"
    )
    quality = models.JSONField(
        default=dict, blank=True, help_text="how labels are checked: see labeling/projects/quality_settings.py"
    )
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    guideline = models.ForeignKey(
        "Guideline", null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="the newest version"
    )
    queue_version = models.PositiveIntegerField(
        default=0, help_text="raised when tasks come in or move, so that nobody's place in the queue is past them"
    )
    overlap = models.PositiveSmallIntegerField(default=1, help_text="judgements wanted for a new task")
    lease_seconds = models.PositiveIntegerField(default=1200)
    allows_revision = models.BooleanField(default=True)
    eval_share = models.FloatField(default=0.2, help_text="share of prompt groups kept for evaluation, 0 to 1")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(overlap__gte=1), name="project_overlap_at_least_one"),
            models.CheckConstraint(condition=models.Q(lease_seconds__gte=30), name="project_lease_at_least_30_s"),
            models.CheckConstraint(
                condition=models.Q(eval_share__gte=0, eval_share__lte=0.9),
                name="project_eval_share_is_a_share",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def live_group(self) -> str:
        return f"project.{self.pk}"


class Membership(models.Model):
    class State(models.TextChoices):
        ACTIVE = "active", "active"
        QUALIFYING = "qualifying", "qualifying"
        PAUSED = "paused", "paused"

    class Consent(models.TextChoices):
        UNKNOWN = "", "not asked"
        GIVEN = "given", "given"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role.choices)
    pseudonym = models.CharField(max_length=32)
    agreed_to = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the content warning that the person agreed to"
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    state_reason = models.CharField(max_length=300, blank=True)
    state_at = models.DateTimeField(null=True)
    languages = models.JSONField(default=list, help_text="codes such as de, en-GB")
    skills = models.JSONField(default=list)
    pool_ids = models.JSONField(default=list, help_text="pools whose tasks the person may be given, the first first")
    queue_places = models.JSONField(default=dict, help_text="see labeling/annotation/queue.py")
    guideline_read = models.PositiveIntegerField(default=0, help_text="the newest version the person has read")
    consent = models.CharField(
        max_length=8, choices=Consent.choices, blank=True, default=Consent.UNKNOWN,
        help_text="to models being trained on the person's judgements; taking it back is a withdrawal",
    )  # fmt: skip
    consent_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_membership_a_project"),
            models.UniqueConstraint(fields=["project", "pseudonym"], name="pseudonym_names_one_member"),
        ]

    def __str__(self) -> str:
        return f"{self.user} as {self.role} of {self.project}"


class Guideline(models.Model):
    """One version of what annotators are asked to do. Never edited: a change is a new version."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="guidelines")
    version = models.PositiveIntegerField()
    markdown = models.TextField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "version"], name="guideline_version_once")]

    def __str__(self) -> str:
        return f"guideline v{self.version}"


class Import(models.Model):
    """One file or body of rows that came in: what was taken, what was not and why; see `labeling.imports`.

    The row is the job too. Whoever holds `owner` and `epoch` may write it. What is counted here was committed together
    with the rows it counts, so an import that broke off goes on after row `n_rows`.
    """

    class State(models.TextChoices):
        DRAFT = "draft", "not started"  # a file that somebody looks at before deciding
        WAITING = "waiting", "waiting"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="imports")
    format = models.CharField(max_length=40)
    filename = models.CharField(max_length=200, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    path = models.CharField(
        max_length=1000, blank=True, help_text="where a file lies that was not copied; empty: in the folder of imports"
    )
    mapping = models.JSONField(default=dict, help_text="column of the format to column of the file")
    options = models.JSONField(default=dict, help_text="of the format")
    source = models.CharField(max_length=200, blank=True, help_text="of rows that name none")
    licence = models.CharField(max_length=80, blank=True, help_text="of rows that name none")
    tags = models.JSONField(default=list, help_text="added to those of each row")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    problem = models.TextField(blank=True, help_text="why it failed")
    n_rows = models.PositiveBigIntegerField(default=0, help_text="rows of the file that are dealt with")
    n_taken = models.PositiveIntegerField(default=0)
    n_duplicates = models.PositiveIntegerField(default=0)
    n_near_duplicates = models.PositiveIntegerField(default=0)
    n_rejected = models.PositiveIntegerField(default=0)
    n_prompts = models.PositiveIntegerField(default=0)
    n_completions = models.PositiveIntegerField(default=0)
    n_judgements = models.PositiveIntegerField(default=0)
    rejected = models.JSONField(default=list, help_text="the first rows refused: [{line, reason}]")
    rejected_bytes = models.PositiveBigIntegerField(default=0, help_text="of the list of all rows refused")
    bytes_done = models.PositiveBigIntegerField(default=0)
    bytes_total = models.PositiveBigIntegerField(default=0)
    seconds = models.FloatField(default=0.0, help_text="spent on it, all attempts together")
    owner = models.CharField(max_length=120, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    enqueued_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    file_removed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["state"], condition=models.Q(state__in=["draft", "waiting", "running"]), name="import_not_over"
            ),
        ]

    def __str__(self) -> str:
        return f"import {self.pk} ({self.format})"

    @property
    def is_over(self) -> bool:
        return self.state in (self.State.DONE, self.State.FAILED, self.State.CANCELLED)


class Prompt(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    external_id = models.CharField(max_length=120, blank=True)
    messages = models.JSONField(help_text="[{role, content}], the last one the user's")
    content_hash = models.CharField(max_length=64)
    group_id = models.CharField(
        max_length=16, help_text="near-duplicates and turns of one conversation share it: see grouping.py"
    )
    source = models.CharField(max_length=200, blank=True)
    licence = models.CharField(max_length=80, blank=True)
    tags = models.JSONField(default=list)
    batch = models.ForeignKey(Import, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "content_hash"], name="prompt_once_a_project")]
        indexes = [
            models.Index(fields=["project", "group_id"]),
            models.Index(fields=["project", "external_id"]),
        ]

    def __str__(self) -> str:
        return f"prompt {self.pk}"


class PromptSignature(models.Model):
    """What near-duplicates of a prompt are found by: see grouping.py. Apart from the prompt, which is read far more often."""

    prompt = models.OneToOneField(Prompt, on_delete=models.CASCADE, related_name="signature")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+", db_index=False)
    value = models.BinaryField(help_text="MinHash of the opening: 64 slots of 32 bits, little-endian")
    is_grouped = models.BooleanField(default=False, help_text="compared with all others of the project")

    class Meta:
        indexes = [
            models.Index(fields=["project", "prompt"], name="signature_of_project"),
            models.Index(fields=["project"], condition=models.Q(is_grouped=False), name="signature_not_grouped"),
        ]

    def __str__(self) -> str:
        return f"signature of prompt {self.prompt_id}"


class Completion(models.Model):
    """One text that answers a prompt. `model_key` is the registry's word for who wrote it; annotators never see it.

    What an annotator wrote has them as `author`: a correction of the completion that it `corrects`, or a demonstration.
    """

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="completions")
    content = models.TextField()
    content_hash = models.CharField(max_length=64)
    model_key = models.CharField(max_length=120, blank=True, help_text="such as smollm2-135m@3; empty: unknown")
    sampling = models.JSONField(default=dict, help_text="temperature, top_p, max_new_tokens, seed, adapter, ...")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    corrects = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="corrections")
    batch = models.ForeignKey(Import, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["prompt", "content_hash", "model_key"],
                condition=models.Q(author=None),
                name="completion_once_a_prompt_and_model",
            ),
            models.UniqueConstraint(
                fields=["prompt", "content_hash", "author"],
                condition=models.Q(author__isnull=False),
                name="completion_once_a_prompt_and_author",
            ),
        ]
        indexes = [models.Index(fields=["model_key"])]

    def __str__(self) -> str:
        return f"completion {self.pk}"
