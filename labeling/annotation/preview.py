"""The bench as a feedback form would make it, before the form is saved: nothing here is in the database."""

from dataclasses import dataclass, field
from typing import Any

from labeling.annotation.bench import Bench
from labeling.annotation.models import Lease, Task
from labeling.annotation.selectors import KEYS, ShownCompletion
from labeling.annotation.services.tasks import MOST_COMPLETIONS
from labeling.projects.feedback import least_completions
from labeling.projects.models import Completion, Guideline, Project, Prompt
from labeling.projects.presets import usual_completions

LOOKED_AT = 40  # prompts, oldest first, among which one with enough completions is sought
SAMPLE_MESSAGES = [
    {"role": "system", "content": "You answer customers of a small shop for ceramics. Be brief and warm."},
    {"role": "user", "content": "Do you send mugs abroad?"},
    {"role": "assistant", "content": "Yes, to most of Europe, within five working days."},
    {"role": "user", "content": "My parcel came open and the mug is broken. I need it by Friday: it is a present."},
]
SAMPLE_COMPLETIONS = [
    "I am sorry, that should not have happened. A new mug leaves today by express and is with you on Thursday. "
    "You needn't send the broken one back.",
    "Please send a photo of the damage to our service address. We will look at it within three to five working days.",
    "Parcels are the carrier's business. **You can complain to them.**",
    "How annoying! I have refunded the mug in full. If you would still like one by Friday, order it with *express* "
    "delivery, and I will pay for that too.",
    "Mugs are made of clay, which was first fired some 20,000 years ago.",
    "We are sorry to hear that. Could you tell us your order number?",
    "A new one is on its way.",
    "Ask in the shop on Saturday, from ten to four.",
    "I can't help with that.",
]


@dataclass
class PreviewBench(Bench):
    """A task that nobody holds."""

    completions: list[str] = field(default_factory=list)
    from_prompt: int | None = None

    @property
    def shown(self) -> list[ShownCompletion]:
        return [ShownCompletion(key, content) for key, content in zip(KEYS, self.completions, strict=False)]


def preview_of(
    *,
    project: Project | None,
    form: dict[str, Any],
    bench: dict[str, Any],
    n: int | None = None,
    guideline: str | None = None,
) -> PreviewBench:
    """The bench with these settings over the project's first prompt that has enough completions, else made-up texts.

    `n` completions are shown, at least what the form needs; None: as many as usual. `guideline` stands for the
    project's own.
    """
    n = min(max(usual_completions(form) if n is None else n, least_completions(form)), MOST_COMPLETIONS)
    prompt, completions = _texts_of(project, n) if project else (None, [])
    shown_in = Project(slug=project.slug if project else "preview", form=form, bench=bench)
    if guideline is None and project:
        version = project.guidelines.order_by("-version").first()
    else:
        version = Guideline(version=1, markdown=guideline) if guideline and guideline.strip() else None
    task = Task(project=shown_in, prompt=Prompt(messages=prompt.messages if prompt else SAMPLE_MESSAGES))
    lease = Lease(pk=0, task=task, order_shown=list(range(n)), guideline=version)
    return PreviewBench(
        lease,
        {},
        submission_key="",
        completions=completions or SAMPLE_COMPLETIONS[:n],
        from_prompt=prompt and prompt.pk,
    )


def _texts_of(project: Project, n: int) -> tuple[Prompt | None, list[str]]:
    prompts = list(Prompt.objects.filter(project=project).order_by("pk")[:LOOKED_AT])
    found: dict[int, list[str]] = {prompt.pk: [] for prompt in prompts}
    if n:
        rows = Completion.objects.filter(prompt__in=found, author=None).order_by("pk")
        for prompt_id, content in rows.values_list("prompt_id", "content"):
            if content not in found[prompt_id]:
                found[prompt_id].append(content)
    for prompt in prompts:
        if len(found[prompt.pk]) >= n:
            return prompt, found[prompt.pk][:n]
    return None, []
