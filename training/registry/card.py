"""The card of a model: Markdown with a head in YAML, as the Hugging Face hub reads it beside the weights."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

from labeling.preferences.card import LICENCES
from labeling.preferences.contents import contents_of
from labeling.preferences.models import Snapshot
from labeling.preferences.withdrawal import withdrawn_rows_in
from training.registry.models import ModelVersion
from training.registry.selectors import Lineage, lineage_of
from training.registry.trust import in_words
from training.sampling.model_files import sha256_of_file

FILE = "README.md"
FEW_PAIRS = 500
HEAD = "reward_head"  # a linear head on the base's hidden states: no library but this one loads it
ADAPTERS = {"dora": "DoRA", "rslora": "rank-stabilised LoRA"}
MACHINES = ("simulated", "model")
MOST_OPTIONS = 60
TASKS = {"policy": "text-generation", "base": "text-generation", "gguf": "text-generation", "reward": "text-classification"}


def card_of(model: ModelVersion) -> str:
    """The whole card, from what the registry holds of a model. Names no person: annotators are counted."""
    lineage = lineage_of(model)
    head = yaml.safe_dump(_head(model, lineage), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [_about(model), _terms(model, lineage), _data(lineage), _evaluation(model), _trust(model), _limits(model, lineage), _making(model), _hashes(model)]
    return f"---\n{head}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def body_of(card: str) -> str:
    """A card without its head."""
    return card.split("\n---\n", 1)[1].lstrip()


def write_card(model: ModelVersion) -> None:
    """Put the card into the model's folder as README.md, and its hash among those that are kept."""
    path = Path(settings.HOME) / model.folder / FILE
    path.write_text(card_of(model), encoding="utf-8")
    model.files = {**model.files, FILE: sha256_of_file(path)}
    model.save(update_fields=["files"])


# --- the head -----------------------------------------------------------------------------------
def _head(model: ModelVersion, lineage: Lineage) -> dict[str, Any]:
    terms = model.terms_of
    name = terms.licence or model.licence
    known = name.strip().lower().replace(" ", "-")
    head: dict[str, Any] = {"license": known} if known in LICENCES else {"license": "other", "license_name": name or "unknown"}
    if terms.licence_url:
        head["license_link"] = terms.licence_url
    if model.base:
        head["base_model"] = model.base.source or model.base.key
        if model.lineage.get("recipe") != HEAD:
            head["base_model_relation"] = _relation(model)
    if lineage.snapshots:
        head["datasets"] = [f"{snapshot.project.slug}/snapshot-{snapshot.number}" for snapshot in lineage.snapshots]
    head["library_name"] = _library(model)
    if model.kind in TASKS:
        head["pipeline_tag"] = TASKS[model.kind]
    recipe = model.lineage.get("recipe")
    head["tags"] = [*([str(recipe)] if recipe else []), *(["reward-model"] if model.kind == "reward" else []), "rlhf", "prefloop"]
    if results := [(metric, figure) for metric, figure in _figures(model) if figure["value"] is not None]:
        dataset = f"snapshot {lineage.snapshots[0].number}, held-out split" if lineage.snapshots else "held-out data"
        head["model-index"] = [
            {
                "name": model.key,
                "results": [
                    {
                        "task": {"type": TASKS.get(model.kind, "text-generation")},
                        "dataset": {"name": dataset, "type": "preference"},
                        "metrics": [_result(metric, figure) for metric, figure in results],
                    }
                ],
            }
        ]
    return head


def _relation(model: ModelVersion) -> str:
    """What it is to its base model, in the hub's words."""
    if model.kind == ModelVersion.Kind.GGUF:
        return "quantized"
    if model.is_adapter:
        return "adapter"
    return "merge" if model.lineage.get("recipe") == "merge" else "finetune"


def _library(model: ModelVersion) -> str:
    if model.kind == ModelVersion.Kind.GGUF:
        return "gguf"
    return "peft" if model.is_adapter else "prefloop" if model.lineage.get("recipe") == HEAD else "transformers"


def _result(metric: str, figure: dict[str, Any]) -> dict[str, Any]:
    """A figure as the hub's model-index takes it; n and interval are in its `args`, which are free."""
    told = {name: figure[name] for name in ("n", "low", "high") if isinstance(figure.get(name), int | float)}
    return {"type": metric, "name": metric, "value": round(figure["value"], 6), **({"args": told} if told else {})}


def _measured(model: ModelVersion) -> ModelVersion:
    """The one whose figures hold: merging an adapter changes nothing that was measured."""
    return model.parent if model.lineage.get("recipe") == "merge" and model.parent and not model.metrics else model


def _figures(model: ModelVersion) -> list[tuple[str, dict[str, Any]]]:
    """Figures that have a value or say why they have none."""
    found = [(name, figure) for name, figure in _measured(model).metrics.items() if isinstance(figure, dict) and "value" in figure]
    return [
        (name, figure) for name, figure in found
        if figure["value"] is None or (isinstance(figure["value"], int | float) and math.isfinite(figure["value"]))
    ]  # fmt: skip


# --- the text -----------------------------------------------------------------------------------
def _about(model: ModelVersion) -> str:
    what = {"policy": "A policy", "reward": "A reward model", "base": "A base model", "gguf": "A policy for serving"}[model.kind]
    words = [what]
    if model.kind == ModelVersion.Kind.GGUF:
        words.append(f"as one GGUF file, quantised from {plain(model.parent.key) if model.parent else 'its original'}")
    elif model.is_adapter:
        kind = (model.lineage.get("options") or {}).get("adapter_kind")
        words.append(f"as a {ADAPTERS.get(kind, 'LoRA')} adapter on {plain(model.base.key) if model.base else 'its base'}")
    elif model.base:
        words.append(f"made of {plain(model.base.key)}")
    if recipe := model.lineage.get("recipe"):
        words.append(f"by the recipe {code(recipe)}")
    lines = [f"# {plain(model.key)}", " ".join(words) + f"; entered {model.created_at:%Y-%m-%d}."]
    if model.lineage.get("imported_from"):
        lines.append("It was made elsewhere and imported: what it was trained on is not known here.")
        lines += [f"- {plain(text)}" for text in model.lineage.get("mended", [])]
    return "\n\n".join(lines)


def _terms(model: ModelVersion, lineage: Lineage) -> str:
    terms = model.terms_of
    rows = [("Licence", plain(terms.licence or "unknown"))]
    if terms.licence_url:
        rows.append(("Terms", plain(terms.licence_url)))
    rows.append(("Fee", "due, or due in some cases" if terms.fee_due else "none known"))
    rows.append(("Acceptance", "the maker asks that somebody accepts the terms first" if terms.acceptance_due else "none known to be due"))
    rows.append(("Restrictions on outputs", plain(terms.output_restrictions) or "none known"))
    rows.append(("Licences of all it was made from", ", ".join(map(plain, lineage.licences)) or "unknown"))
    return "## Licence and terms\n\n" + table(("of the terms", "what is known"), rows)


def _data(lineage: Lineage) -> str:
    if not lineage.snapshots:
        return "## Data\n\nNo preference data of this site went into it."
    rows = []
    for snapshot in lineage.snapshots:
        licences = ", ".join(f"{plain(name)} ({n:,})" for name, n in snapshot.manifest.get("pairs_by_licence", {}).items())
        rows.append(
            (
                f"{plain(snapshot.project.slug)} #{snapshot.number}", f"{snapshot.n_judgements:,}", f"{snapshot.n_pairs:,}",
                _n_people(snapshot), licences or "unknown", f"`{snapshot.content_hash}`",
            )
        )  # fmt: skip
    kinds = ", ".join(f"{n:,} {KIND_WORDS.get(kind, kind)}" for kind, n in lineage.annotators_by_kind.items())
    lines = [
        "## Data",
        table(("snapshot", "judgements", "pairs", "annotators", "pairs by licence", "SHA-256"), rows),
        f"Judgements behind the model: {kinds or 'none'}." if kinds else "",
    ]
    return "\n\n".join(line for line in lines if line)


KIND_WORDS = {"human": "by people", "simulated": "by simulated annotators (programs)", "model": "by models as judges", "imported": "imported"}


def _n_people(snapshot: Snapshot) -> str:
    try:
        return f"{len(contents_of(snapshot).people):,}"
    except OSError:
        return "unknown"  # its files are away; the snapshot's own page says so


def _evaluation(model: ModelVersion) -> str:
    figures = _figures(model)
    if not figures:
        told = "A base model is not measured here." if model.kind == "base" else "It was not measured: its run had no pairs to evaluate on."
        return f"## How it was evaluated\n\n{told}"
    rows = []
    for name, figure in figures:
        value = "–" if figure["value"] is None else f"{figure['value']:.4g}"
        low, high = figure.get("low"), figure.get("high")
        interval = f"{low:.4g} to {high:.4g}" if isinstance(low, int | float) and isinstance(high, int | float) else "none"
        n = figure.get("n")
        rows.append((code(name), value, interval, f"{n:,}" if isinstance(n, int) else "–", plain(figure.get("method") or "–")))
    return "\n\n".join(
        [
            "## How it was evaluated",
            *([f"Measured on {plain(_measured(model).key)}, the adapter that was merged."] if _measured(model) != model else []),
            "Against the original, on its completions of held-out prompts: `kl/per_token` is KL(original, quantised) in nats."
            if model.kind == ModelVersion.Kind.GGUF
            else "On pairs that were held out by prompt group, so that no prompt, nor one nearly alike, was trained on.",
            table(("figure", "value", "95 % interval", "n", "interval by"), rows),
        ]
    )


def _trust(model: ModelVersion) -> str:
    sentences = in_words(_measured(model).metrics) if model.kind == ModelVersion.Kind.REWARD else []
    if not sentences:
        return ""
    lines = [*sentences, "In brackets are 95 % intervals. On other prompts, or completions of another kind, it may do worse."]
    return "## How far to trust it\n\n" + "\n".join(f"- {text}" for text in lines)


def _limits(model: ModelVersion, lineage: Lineage) -> str:
    return "## Intended use and known limits\n\n" + "\n".join(f"- {text}" for text in known_limits(model, lineage))


def known_limits(model: ModelVersion, lineage: Lineage) -> Iterable[str]:
    """What it is for, and what speaks against relying on it, as far as counting can tell."""
    if model.kind == ModelVersion.Kind.REWARD:
        yield "It orders completions as its annotators would. Its numbers mean nothing by themselves, and nothing far from its data."
    elif model.kind == ModelVersion.Kind.GGUF:
        yield "It is for serving what it was quantised from: nothing is trained from it, and that model's limits are its own."
    elif model.kind == ModelVersion.Kind.POLICY:
        yield "It is for prompts like those it was trained on. It was not checked for facts, for safety, or on other prompts."
    for snapshot_id, held in withdrawn_rows_in(lineage.snapshots).items():
        number = next(snapshot.number for snapshot in lineage.snapshots if snapshot.pk == snapshot_id)
        yield f"**Rows of snapshot {number} were withdrawn since: {held}.** Train again on a new snapshot."
    n_pairs = sum(snapshot.n_pairs for snapshot in lineage.snapshots)
    if lineage.snapshots and n_pairs < FEW_PAIRS:
        yield f"It learned from few pairs: {n_pairs:,}."
    by_machines = sum(lineage.annotators_by_kind.get(kind, 0) for kind in MACHINES)
    if by_machines:
        share = by_machines / sum(lineage.annotators_by_kind.values())
        yield f"**{share:.0%} of the judgements behind it were not made by people**, but by programs or models."
    for name, figure in _figures(model):
        low, high = figure.get("low"), figure.get("high")
        if ("accura" in name or "win" in name) and isinstance(low, int | float) and isinstance(high, int | float) and low <= 0.5 <= high:
            yield f"The interval of {code(name)} holds 0.5: it may be no better than chance."
    if not lineage.licences:
        yield "No licence is known of what it was made from."
    if model.terms_of.output_restrictions:
        yield "The terms of its base model restrict what its outputs may be used for: see above."
    if model.kind == ModelVersion.Kind.BASE:
        yield "What it was trained on, and how it was checked, is for its maker to say."


def _making(model: ModelVersion) -> str:
    facts = model.lineage
    if not facts.get("recipe"):
        return ""
    rows = [
        (name, code(facts[key]))
        for name, key in (("recipe", "recipe"), ("run", "run"), ("started from", "parent"), ("taught by", "teacher"), ("seed", "seed"), ("code version", "code_version"))
        if facts.get(key) is not None
    ]  # fmt: skip
    rows += [(plain(library), code(version)) for library, version in (facts.get("versions") or {}).items()]
    options = list((facts.get("options") or {}).items())
    parts = ["## How it was made", table(("fact", "value"), rows)]
    if options:
        parts.append(table(("option that was set", "value"), [(code(name), code(value)) for name, value in options[:MOST_OPTIONS]]))
    return "\n\n".join(parts)


def _hashes(model: ModelVersion) -> str:
    rows = [(code(name), f"`{digest}`") for name, digest in sorted(model.files.items()) if name != FILE]
    return "## Hashes\n\n" + table(("file", "SHA-256"), rows) if rows else ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, tuple("---" for _ in head), *rows))


def plain(text: Any) -> str:
    """Somebody's text as one line that Markdown and its tables leave as it is."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!~" else char for char in " ".join(str(text).split()))


def code(text: Any) -> str:
    """Somebody's text as code on one line, also inside a table."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`"
