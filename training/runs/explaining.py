"""Why a reward model rewarded something: what may be asked, and what a run of kind `explain` found."""

from collections.abc import Iterator
from typing import Any

from labeling.annotation.selectors import prompts_removed
from labeling.projects.models import Completion, Project
from training.runs.errors import RunError
from training.runs.models import Run

ROLES = ("system", "user", "assistant")
MAX_CHARACTERS = 40_000  # of prompt and completions: beyond it a run takes long and its page can't be read
MAX_COMPLETIONS = 2
ASKED_BY = ("completion_ids", "prompt", "completions")

Inputs = dict[str, Any]


def check_asked(project: Project, inputs: Inputs) -> tuple[Inputs, dict[str, str]]:
    """What is to be explained, as a run keeps it, and what is wrong with it by name of the field.

    Either `completion_ids`, one or two completions of one prompt of the project, or `prompt` (a text or messages) and
    `completions`, one or two texts.
    """
    if "completion_ids" in inputs:
        if extra := [name for name in ASKED_BY[1:] if name in inputs]:
            return {}, {f"inputs.{extra[0]}": "can't be given beside completion_ids: name the completions, or write them"}
        ids, problem = _check_ids(project, inputs["completion_ids"])
        return {"completion_ids": ids}, {"inputs.completion_ids": problem} if problem else {}
    messages, problem = _check_prompt(inputs.get("prompt"))
    if problem:
        return {}, {"inputs.prompt": problem}
    texts = inputs.get("completions")
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_COMPLETIONS:
        return {}, {"inputs.completions": "must be a list of one or two texts"}
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return {}, {"inputs.completions": "must be texts that are not empty"}
    if _too_long(messages, texts):
        return {}, {"inputs.completions": TOO_LONG}
    return {"prompt": messages, "completions": texts}, {}


TOO_LONG = f"are more than {MAX_CHARACTERS:,} characters with their prompt: explain a shorter one"


def _check_ids(project: Project, ids: Any) -> tuple[list[int], str]:
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_COMPLETIONS or len(set(map(str, ids))) < len(ids):
        return [], "must be a list of one or two different completions"
    if not all(str(id).isascii() and str(id).isdigit() and len(str(id)) < 19 for id in ids):
        return [], "there is no such completion in this project"
    kept = [int(id) for id in ids]
    found = Completion.objects.filter(prompt__project=project).select_related("prompt").in_bulk(kept)
    if len(found) < len(kept):
        return [], "there is no such completion in this project"
    rows = [found[id] for id in kept]
    if len({row.prompt_id for row in rows}) > 1:
        return [], "must be completions of one prompt: rewards of different prompts can't be compared"
    if prompts_removed(project).filter(prompt=rows[0].prompt_id).exists():
        return [], "the prompt was removed: nothing is asked about it any more"
    if not all(row.content.strip() for row in rows):
        return [], "one is empty: there are no tokens to explain"
    if _too_long(rows[0].prompt.messages, [row.content for row in rows]):
        return [], TOO_LONG
    return kept, ""


def _check_prompt(prompt: Any) -> tuple[list[dict[str, str]], str]:
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        return [], "is required: a text, or messages with role and content"
    for message in prompt:
        if (
            not isinstance(message, dict)
            or set(message) != {"role", "content"}
            or message["role"] not in ROLES
            or not isinstance(message["content"], str)
        ):
            return [], f"must hold messages with a role ({', '.join(ROLES)}) and a text as content"
    if prompt[-1]["role"] != "user" or not prompt[-1]["content"].strip():
        return [], "must end with what the user says"
    return prompt, ""


def _too_long(messages: list[dict[str, str]], texts: list[str]) -> bool:
    return sum(len(str(message["content"])) for message in messages) + sum(map(len, texts)) > MAX_CHARACTERS


def rows_to_explain(run: Run) -> Iterator[dict[str, Any]]:
    """The rows of the run's dataset, in the order asked for. Raises RunError where a completion was deleted since."""
    if ids := run.inputs.get("completion_ids"):
        found = Completion.objects.filter(prompt__project=run.project).select_related("prompt").in_bulk(ids)
        if gone := [str(id) for id in ids if id not in found]:
            raise RunError(f"The completion {' and '.join(gone)} is gone: ask about another one")
        for id in ids:
            yield {"prompt": found[id].prompt.messages, "completion": found[id].content, "completion_id": id}
        return
    for text in run.inputs["completions"]:
        yield {"prompt": run.inputs["prompt"], "completion": text}


def prompt_explained(run: Run) -> list[dict[str, str]]:
    """The messages that the completions answer; empty where they are gone."""
    if ids := run.inputs.get("completion_ids"):
        first = Completion.objects.filter(prompt__project=run.project, pk=ids[0]).select_related("prompt").first()
        return first.prompt.messages if first else []
    return run.inputs.get("prompt", [])


def explanation_of(run: Run) -> dict[str, Any] | None:
    """What the run found so far, its completions in the order asked for; None before the first, or for other kinds."""
    if run.kind != "explain":
        return None
    # A run that was resumed explains anew: of one number the last counts.
    events = run.events.filter(type="explanation").order_by("number")
    by_number = {event.payload.get("number"): event.payload for event in events}
    if not by_number:
        return None
    ids = run.inputs.get("completion_ids") or [None] * len(by_number)
    rows = [
        {**by_number[number], "completion_id": ids[number]} for number in sorted(by_number) if number < len(ids)
    ]  # fmt: skip
    return {"completions": rows, "difference": run.result.get("difference")}
