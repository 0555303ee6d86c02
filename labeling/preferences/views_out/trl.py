"""Views in TRL's own columns."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import orjson

from labeling.preferences.models import Snapshot
from labeling.preferences.supervised import sft_rows, unpaired_rows
from labeling.preferences.views_out.columns import MESSAGES, Row
from labeling.preferences.views_out.tasks import with_origins
from labeling.preferences.views_out.transcripts import hh_transcript, standard_completion, standard_prompt
from labeling.preferences.views_out.view import View

if TYPE_CHECKING:
    import pyarrow as pa

FOR_THE_LOSS = {"margin": float, "weight": float, "soft_label": float, "group_id": str, "tie": bool}
ORIGIN = {
    "source": str, "model": str, "annotator": str, "annotator_kind": str, "group_id": str, "licence": str,
}  # fmt: skip


def soft_label(row: Row) -> float:
    """Probability that the chosen one is better. Snapshots older than this field only know ties from decided pairs."""
    found = row.get("soft_label")
    return found if found is not None else 0.5 if row["tie"] else 1.0


def preference(row: Row) -> Row:
    """TRL's explicit-prompt conversational preference, with what the loss may use. `margin` may be null."""
    return {
        "prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"], "margin": row["margin"],
        "weight": row["weight"], "soft_label": soft_label(row), "group_id": row["group_id"], "tie": row["tie"],
    }  # fmt: skip


def _preferences(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    """TRL's RewardTrainer subtracts `margin` wherever the column is there, so none is 0 here."""
    for row in rows:
        found = preference(row)
        found["margin"] = float(found["margin"] or 0)
        yield found


def _completed(table: "pa.Table") -> "pa.Table":
    """The same of a table of the frozen columns: `margin` and `soft_label` are never null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    fallbacks = {"margin": pa.scalar(0.0), "soft_label": pc.if_else(table.column("tie"), 0.5, 1.0)}
    for name, fallback in fallbacks.items():
        if table.column(name).null_count:
            filled = pc.coalesce(table.column(name), fallback)
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), filled)
    return table


def _standard(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    for row in _preferences(snapshot, rows):
        yield row | {
            "prompt": standard_prompt(row["prompt"]),
            "chosen": standard_completion(row["chosen"]),
            "rejected": standard_completion(row["rejected"]),
        }


def _hh(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if not row["tie"]:
            yield {side: hh_transcript(row["prompt"] + row[side]) for side in ("chosen", "rejected")}


def _sft(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    return _of_tasks(snapshot, rows, sft_rows)


def _unpaired(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    return _of_tasks(snapshot, rows, unpaired_rows)


def _of_tasks(snapshot: Snapshot, rows: Iterator[Row], make: Callable[..., list[Row]]) -> Iterator[Row]:
    how = {
        "corrections": snapshot.policy.get("corrections", "include") == "include",
        "without_flags": snapshot.filters.get("without_flags", ()),
    }
    for votes, origin in with_origins(snapshot, rows):
        for row in make(votes, **how):
            yield row | origin


def _prompts(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    """Each prompt once, where it comes first. Of what was seen eight bytes are kept, not the text."""

    def hash_of(prompt: list[Row]) -> int:
        return int.from_bytes(hashlib.blake2b(orjson.dumps(prompt), digest_size=8).digest(), "big")

    seen: set[int] = set()
    for votes, origin in with_origins(snapshot, rows):
        name = hash_of(votes[0]["prompt"])
        if name not in seen:
            seen.add(name)
            yield {"prompt": votes[0]["prompt"], "iteration": votes[0]["iteration"], **origin}


PREFERENCE = View(
    "TRL's columns, conversational: prompt, chosen, rejected, with margin, weight, soft_label and group_id",
    frozen="pairs",
    rows=_preferences,
    columns={"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, **FOR_THE_LOSS},
    table=_completed,
)
PREFERENCE_STANDARD = View(
    "the same as plain text: TRL's standard form, for base models without a chat template",
    frozen="pairs",
    rows=_standard,
    columns={"prompt": str, "chosen": str, "rejected": str, **FOR_THE_LOSS},
)
UNPAIRED = View(
    "TRL's columns for KTO: prompt, completion, label; by what was called acceptable, and what was written",
    frozen="votes",
    rows=_unpaired,
    columns={
        "prompt": MESSAGES, "completion": MESSAGES, "label": bool, "acceptable_share": float, "n_votes": int, **ORIGIN,
    },
)  # fmt: skip
SFT = View(
    "TRL's messages: corrections, demonstrations, and the best completion where nobody edited it",
    frozen="votes",
    rows=_sft,
    columns={"messages": MESSAGES, **ORIGIN},
)
PROMPT = View(
    "each prompt once, for GRPO, RLOO and PPO",
    frozen="votes",
    rows=_prompts,
    columns={"prompt": MESSAGES, "iteration": int, "group_id": str, "licence": str},
)
HH = View(
    "chosen and rejected as transcripts, as in hh-rlhf; without ties, which it has no word for",
    frozen="pairs",
    rows=_hh,
    columns={"chosen": str, "rejected": str},
)
