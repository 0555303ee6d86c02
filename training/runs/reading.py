"""What a run would read: how many rows, and how long they are for its model. Counted once and kept, so that forms are quick."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from django.core.cache import cache

from labeling.preferences.models import Snapshot
from labeling.preferences.views_of_snapshots import rows_in, rows_to_train_on
from labeling.projects.models import Completion, Project, Prompt
from labeling.projects.text import split_of
from training.runs.catalogue import KINDS, view_of
from training.runs.efforts import Data, Lengths
from training.runs.folder import prompts_to_sample
from training.sampling.chat_template import count_tokens
from training.sampling.fitness import how_it_reads
from training.sampling.model_facts import stamp_of
from training.sampling.model_files import ModelFilesError

KEEP_SECONDS = 86_400
MAX_ROWS_READ = 20_000
MAX_SAMPLED = 400
CHARACTERS_A_TOKEN = 3.6  # of English by vocabularies of 30,000 and more; others may need twice as many tokens
TOKENS_A_MESSAGE = 6  # of a template
UNCERTAINTY = 0.4

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Read:
    """`longest` are the tokens of each sampled row's longest text, or of its prompt where it has no text."""

    data: Data = field(default_factory=Data)
    longest: tuple[int, ...] = ()
    n_refused: int = 0  # sampled rows that the chat template refuses, such as those with a system message
    n_sampled: int = 0

    @property
    def is_whole(self) -> bool:
        return self.n_sampled >= self.data.n_train


def kept(name: str, parts: Sequence[Any], compute: Callable[[], Any]) -> Any:
    """What `compute` gives for these parts, from the site's cache where it was computed before."""
    key = f"{name}-{hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_NON_STR_KEYS)).hexdigest()}"
    found = cache.get(key)
    if found is None:
        found = compute()
        cache.set(key, found, KEEP_SECONDS)
    return found


def read_for(
    *, project: Project, kind: str, options: dict[str, Any], snapshot: Snapshot | None, inputs: dict[str, Any], folder: Path | None
) -> Read:
    """`folder` is the model's, whose tokenizer and chat template count; None: nobody counts, and lengths are guessed.

    Raises FileNotFoundError where the snapshot's files are gone.
    """
    known = KINDS[kind]
    if known.needs_snapshot and snapshot:
        return _of_snapshot(snapshot, kind, options, folder)
    if known.explains:
        return _of_explanation(project, inputs, folder)
    if not known.needs_prompts:
        return Read()
    read = _of_prompts(project, known.prompt_splits, inputs, folder)
    if known.may_have_snapshot and snapshot:
        n_texts = _n_rows(snapshot, known.view, "eval")
        texts = _counted(folder, [row["messages"] for row in islice(rows_to_train_on(snapshot, known.view, "eval"), MAX_SAMPLED)])
        lengths = replace(read.data.lengths, texts=tuple(count for count in texts[0] if count is not None))
        return replace(read, data=replace(read.data, n_texts=n_texts, lengths=lengths))
    return read


# --- snapshots ----------------------------------------------------------------------------------
def _of_snapshot(snapshot: Snapshot, kind: str, options: dict[str, Any], folder: Path | None) -> Read:
    view = view_of(kind, options)
    sources = sorted(options.get("sources") or ()) if view == "sft" else []
    parts = [snapshot.content_hash, snapshot.pk, view, sources, str(folder), stamp_of(folder) if folder else ""]
    found = kept("run-rows", parts, lambda: _read_rows(snapshot, view, sources, folder))
    n_train = found["n_train"]
    if view == "preference" and kind == "kto":
        n_train = found["n_distinct"]
    elif most := options.get("max_pairs_per_group"):
        n_train = round(sum(min(size, most) * n for size, n in found["group_sizes"]) * found["scale"])
    lengths = Lengths(tuple(found["prompts"]), tuple(found["texts"]), found["uncertainty"])
    n_distinct = found["n_distinct"] if kind in ("reward_head", "layers") else 0
    data = Data(n_train=n_train, n_eval=found["n_eval"], lengths=lengths, n_distinct=n_distinct)
    return Read(data, tuple(found["longest"]), found["n_refused"], found["n_sampled"])


def _read_rows(snapshot: Snapshot, view: str, sources: list[str], folder: Path | None) -> dict[str, Any]:
    rows = (row for row in rows_to_train_on(snapshot, view, "train") if not sources or row["source"] in sources)
    groups: Counter[str] = Counter()
    texts: set[int] = set()
    sampled: list[dict[str, Any]] = []
    every, n_read = 1, 0
    for row in islice(rows, MAX_ROWS_READ):
        groups[str(row["group_id"])] += 1
        texts.update(hash((row["group_id"], orjson.dumps(completion))) for completion in _split(row)[1])
        if n_read % every == 0:
            sampled.append(row)
            if len(sampled) > MAX_SAMPLED:  # half as many, from the whole of what was read
                sampled, every = sampled[::2], every * 2
        n_read += 1
    n_train = n_read if n_read < MAX_ROWS_READ else max(n_read, rows_in(snapshot, view, "train") or 0)
    scale = n_train / n_read if n_read else 1.0
    asked = [_split(row)[0] for row in sampled]
    written = [[*prompt, *completion] for prompt, completions in map(_split, sampled) for completion in completions]
    counts, uncertainty = _counted(folder, [*asked, *written])
    prompts, texts_counted = counts[: len(asked)], counts[len(asked) :]
    a_row = len(written) // len(sampled) if sampled else 1
    by_row = [texts_counted[start : start + a_row] for start in range(0, len(texts_counted), a_row or 1)]
    return {
        "n_train": n_train,
        "n_eval": _n_rows(snapshot, view, "eval"),
        "n_distinct": round(len(texts) * scale),
        "group_sizes": sorted(Counter(groups.values()).items()),
        "scale": scale,
        "prompts": [count for count in prompts if count is not None],
        "texts": [count for count in texts_counted if count is not None],
        "longest": [max(row) for row in by_row if None not in row],
        "n_refused": sum(None in row for row in by_row),
        "n_sampled": len(sampled),
        "uncertainty": uncertainty,
    }


def _n_rows(snapshot: Snapshot, view: str, split: str) -> int:
    counted = rows_in(snapshot, view, split)
    return sum(1 for _ in islice(rows_to_train_on(snapshot, view, split), MAX_ROWS_READ)) if counted is None else counted


def _split(row: dict[str, Any]) -> tuple[Messages, list[Messages]]:
    """The prompt of a row of any view, and its completions."""
    if "messages" in row:
        return row["messages"][:-1], [row["messages"][-1:]]
    return row["prompt"], [row[name] for name in ("chosen", "rejected", "completion") if name in row]


# --- prompts ------------------------------------------------------------------------------------
def _of_prompts(project: Project, splits: tuple[str, ...], inputs: dict[str, Any], folder: Path | None) -> Read:
    """A run without splits answers all prompts; an evaluation those held out, which are its `n_eval`."""
    found: dict[str, list[int]] = {"train": [], "eval": []}
    for pk, group in prompts_to_sample(project, inputs).values_list("pk", "group_id"):
        found[split_of(group, project.eval_share) if splits else "train"].append(pk)
    of = found[splits[0] if splits else "train"]
    chosen = of[:: max(1, -(-len(of) // MAX_SAMPLED))]
    asked = Prompt.objects.filter(pk__in=chosen).order_by("pk").values_list("messages", flat=True)
    counts, uncertainty = _counted(folder, list(asked))
    lengths = tuple(count for count in counts if count is not None)
    data = Data(n_train=len(found["train"]), n_eval=len(found["eval"]), lengths=Lengths(lengths, (), uncertainty))
    return Read(data, lengths, sum(count is None for count in counts), len(chosen))


def _of_explanation(project: Project, inputs: dict[str, Any], folder: Path | None) -> Read:
    if ids := inputs.get("completion_ids"):
        found = Completion.objects.filter(prompt__project=project, pk__in=ids).select_related("prompt")
        asked = [[*row.prompt.messages, {"role": "assistant", "content": row.content}] for row in found]
    else:
        asked = [[*inputs.get("prompt", []), {"role": "assistant", "content": text}] for text in inputs.get("completions", [])]
    counts, uncertainty = _counted(folder, asked)
    texts = tuple(count for count in counts if count is not None)
    return Read(Data(n_train=len(asked), n_asked=len(asked), lengths=Lengths((), texts, uncertainty)), texts, 0, len(asked))


# --- tokens -------------------------------------------------------------------------------------
def _counted(folder: Path | None, conversations: list[Messages]) -> tuple[list[int | None], float]:
    """Tokens of each, and how far they may be off: by the model's own tokenizer, or from their characters."""
    if not conversations:
        return [], 0.0
    if folder is not None and folder.is_dir():
        try:
            reads = how_it_reads(folder)
        except ModelFilesError:
            reads = None
        if reads and reads.template:
            asked = (reads.template, reads.special, folder / "tokenizer.json", conversations)
            counts = kept("tokens", [str(folder), stamp_of(folder), conversations], lambda: count_tokens(*asked))
            if counts is not None:
                return counts, 0.0
    return [round(_characters(messages) / CHARACTERS_A_TOKEN) + TOKENS_A_MESSAGE * len(messages) for messages in conversations], UNCERTAINTY


def _characters(messages: Messages) -> int:
    return sum(len(message["content"]) for message in messages if isinstance(message["content"], str))
