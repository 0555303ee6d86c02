"""The lineage of a project as a graph: licences, iterations, snapshots, runs and models, and what is made of what.

`graph_of` reads it, `around` keeps what leads to a node and what follows from it, within bounds.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models.fields.json import KeyTransform

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.registry.selectors import models_of

KINDS = ("licence", "iteration", "snapshot", "run", "model")
MOST_ROWS = 5_000  # of each kind, the newest: what the graph is read from
MOST_NODES = 400  # shown at once
MOST_AFTER = 8  # shown after one node until it is opened
NO_LICENCE = "unknown"


@dataclass
class Node:
    """`id` is its kind and its number or name, as in `model:12`; `note` says more in a few words."""

    id: str
    label: str
    kind: str
    note: str = ""
    state: str = ""
    number: int = 0  # the snapshot's or iteration's, for its address
    n_hidden: int = 0  # that follow from it and are not shown

    @property
    def pk(self) -> str:
        return self.id.partition(":")[2]


@dataclass
class Graph:
    nodes: dict[str, Node] = field(default_factory=dict)
    before: dict[str, list[str]] = field(default_factory=dict)
    after: dict[str, list[str]] = field(default_factory=dict)
    is_cut: bool = False  # more leads here or follows than was kept

    def add(self, node: Node) -> None:
        self.nodes[node.id] = node

    def join(self, source: str, target: str) -> None:
        if source in self.nodes and target in self.nodes and source not in self.before.get(target, ()):
            self.before.setdefault(target, []).append(source)
            self.after.setdefault(source, []).append(target)

    @property
    def edges(self) -> list[tuple[str, str]]:
        return [(source, target) for target, sources in self.before.items() for source in sources]


def inputs_of_run(run: Any) -> Iterable[ModelVersion | None]:
    """The models that a run read beside its snapshot."""
    yield run.model
    yield run.other_model
    yield from run.reward_models.all()


def graph_of(project: Project) -> Graph:
    """All of a project that its readers may see, with the base models that it used. A handful of queries."""
    graph = Graph()
    models = {
        model.pk: model
        for model in models_of(project).select_related(None).order_by("-pk")[:MOST_ROWS]
    }
    snapshots = (
        Snapshot.objects.filter(project=project).defer("manifest").order_by("-pk")
        .annotate(kinds=KeyTransform("annotator_kinds", "manifest"), licences=KeyTransform("pairs_by_licence", "manifest"))
    )[:MOST_ROWS]  # fmt: skip
    runs = project.runs.exclude(output_model=None).select_related("model", "other_model").prefetch_related("reward_models").defer("result", "spec").order_by("-pk")[:MOST_ROWS]
    licences: dict[str, list[str]] = {}
    for model in models.values():
        graph.add(Node(f"model:{model.pk}", model.key, "model", model.get_kind_display(), model.stage))
        if model.kind == ModelVersion.Kind.BASE:
            licences.setdefault(model.licence or NO_LICENCE, []).append(f"model:{model.pk}")
    for snapshot in snapshots:
        note = ", ".join(f"{n:,} {'by people' if kind == 'human' else kind}" for kind, n in (snapshot.kinds or {}).items())
        node = Node(f"snapshot:{snapshot.pk}", f"snapshot #{snapshot.number}", "snapshot", note or "no judgements", number=snapshot.number)
        graph.add(node)
        for licence in snapshot.licences or {}:
            licences.setdefault(licence or NO_LICENCE, []).append(node.id)
    for licence, holders in licences.items():
        graph.add(Node(f"licence:{licence}", licence, "licence", "licence"))
        for holder in holders:
            graph.join(f"licence:{licence}", holder)
    made: set[int] = set()
    for run in runs:
        graph.add(Node(f"run:{run.pk}", f"run {run.pk}", "run", run.kind, run.state))
        for model in inputs_of_run(run):
            if model is not None:
                graph.join(f"model:{model.pk}", f"run:{run.pk}")
        graph.join(f"snapshot:{run.snapshot_id}", f"run:{run.pk}")
        graph.join(f"run:{run.pk}", f"model:{run.output_model_id}")
        made.add(run.output_model_id)
    for turn in project.iterations.order_by("-pk")[:MOST_ROWS]:
        graph.add(Node(f"iteration:{turn.pk}", f"iteration {turn.number}", "iteration", turn.get_stage_display(), number=turn.number))
        graph.join(f"iteration:{turn.pk}", f"snapshot:{turn.snapshot_id}")
        for run_id in (turn.reward_run_id, turn.policy_run_id):
            graph.join(f"iteration:{turn.pk}", f"run:{run_id}")
    for model in models.values():
        if model.pk in made:  # its run says the rest
            continue
        parents = [model.parent_id] if model.parent_id else [model.base_id]
        for parent in parents:
            graph.join(f"model:{parent}", f"model:{model.pk}")
        graph.join(f"snapshot:{model.snapshot_id}", f"model:{model.pk}")
    for after in graph.after.values():
        after.sort(key=_newest_first, reverse=True)
    return graph


def _newest_first(id: str) -> int:
    pk = id.partition(":")[2]
    return int(pk) if pk.isdigit() else 0


def around(graph: Graph, start: str, *, opened: Collection[str] = ()) -> Graph:
    """What leads to `start` and what follows from it, nearest first, at most MOST_NODES.

    After one node the newest MOST_AFTER are kept, or all where it is in `opened`; the rest are counted in `n_hidden`.
    Of a run that follows, what else it read is kept too, so that nothing seems to come of one thing alone.
    """
    kept = {start: None}
    is_cut = False
    queue = [start]
    while queue:  # back: all of it, for that is what one asks first
        for source in graph.before.get(queue.pop(0), ()):
            if source not in kept:
                if len(kept) >= MOST_NODES:
                    is_cut = True
                    continue
                kept[source] = None
                queue.append(source)
    hidden: dict[str, int] = {}
    queue, reached = [start], {start}
    while queue:
        current = queue.pop(0)
        following = graph.after.get(current, [])
        taken = following if current in opened else following[:MOST_AFTER]
        for target in taken:
            if target in reached:
                continue
            if len(kept) >= MOST_NODES and target not in kept:
                is_cut = True
                hidden[current] = hidden.get(current, 0) + 1
                continue
            reached.add(target)
            kept[target] = None
            queue.append(target)
        hidden[current] = hidden.get(current, 0) + len(following) - len(taken)
    for target in [node for node in kept if node.startswith("run:")]:
        for source in graph.before.get(target, ()):
            if len(kept) < MOST_NODES:
                kept.setdefault(source)
    shown = Graph(is_cut=is_cut)
    for id in kept:
        node = graph.nodes[id]
        node.n_hidden = hidden.get(id, 0)
        shown.add(node)
    for id in kept:
        for source in graph.before.get(id, ()):
            shown.join(source, id)
    return shown
