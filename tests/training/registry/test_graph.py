"""What leads to a thing and what follows from it, and where it is drawn."""

import re
from itertools import product

import pytest

from labeling.preferences.services import create_snapshot
from tests import factories
from training.loop.models import Iteration
from training.registry.drawing import HEIGHT, WIDTH, draw, n_crossings
from training.registry.graph import MOST_AFTER, MOST_NODES, Graph, Node, around, graph_of
from training.registry.models import ModelVersion
from training.runs.models import Run


def made(project, name, *, parent=None, kind="policy", **extra) -> ModelVersion:
    return ModelVersion.objects.create(
        key=f"{name}@1", name=name, version=1, kind=kind, project=None if kind == "base" else project, parent=parent,
        base=parent and (parent.base or parent), folder="x", licence="Apache-2.0", **extra,
    )  # fmt: skip


@pytest.fixture
def family(project, annotator, lead):
    """small -> run -> first -> second, on snapshot 1; and a base model of another family."""
    factories.fill_project(project, 8)
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    small = made(project, "small", kind="base")
    first = made(project, "first", parent=small, snapshot=snapshot)
    run = Run.objects.create(project=project, kind="dpo", state="done", model=small, snapshot=snapshot, output_model=first)
    second = made(project, "second", parent=first)
    other = made(project, "other", kind="base")
    return {"small": small, "first": first, "second": second, "other": other, "run": run, "snapshot": snapshot}


def names(graph: Graph) -> set[str]:
    return {node.label for node in graph.nodes.values()}


def test_lineage_goes_back_to_licences_and_forward_to_models(project, family):
    graph = graph_of(project)
    licences = {"Apache-2.0", "CC0-1.0"}
    run, snapshot = f"run {family['run'].pk}", "snapshot #1"
    of_second = around(graph, f"model:{family['second'].pk}")
    assert names(of_second) == {"second@1", "first@1", run, snapshot, "small@1"} | licences
    of_snapshot = around(graph, f"snapshot:{family['snapshot'].pk}")
    assert names(of_snapshot) == {snapshot, "CC0-1.0", run, "first@1", "second@1", "small@1"}
    of_licence = around(graph, "licence:CC0-1.0")
    assert {"first@1", "second@1", snapshot} <= names(of_licence) and "other@1" not in names(of_licence)
    assert (f"snapshot:{family['snapshot'].pk}", f"run:{family['run'].pk}") in of_second.edges
    assert (f"run:{family['run'].pk}", f"model:{family['first'].pk}") in of_second.edges
    # The run says what the model was made from: no second line beside it.
    assert (f"model:{family['small'].pk}", f"model:{family['first'].pk}") not in of_second.edges


def test_another_projects_models_are_not_in_it(project, family, stranger):
    made(factories.make_project(stranger, slug="elsewhere"), "theirs", parent=family["small"])
    assert "theirs@1" not in names(graph_of(project))


def test_hundreds_that_follow_are_counted_until_they_are_asked_for_and_cost_no_more_queries(
    project, family, django_assert_max_num_queries
):
    small = family["small"]
    ModelVersion.objects.bulk_create(
        ModelVersion(key=f"c@{n}", name="c", version=n, kind="policy", project=project, parent=small, base=small, folder="x")
        for n in range(1, 301)
    )
    start = f"model:{small.pk}"
    with django_assert_max_num_queries(6):
        graph = graph_of(project)
    closed = around(graph, start)
    n_after = len(graph.after[start])
    assert len(closed.after[start]) == MOST_AFTER and closed.nodes[start].n_hidden == n_after - MOST_AFTER
    opened = around(graph, start, opened=[start])
    assert len(opened.after[start]) == n_after and opened.nodes[start].n_hidden == 0
    drawing = draw(opened, start)
    assert len(drawing.placed) == len(opened.nodes) >= 300


def test_no_more_is_shown_than_fits_and_it_is_said():
    graph = Graph()
    for n in range(MOST_NODES + 100):
        graph.add(Node(f"model:{n}", str(n), "model"))
        graph.join("model:0", f"model:{n}") if n else None
    shown = around(graph, "model:0", opened=["model:0"])
    assert len(shown.nodes) == MOST_NODES and shown.is_cut and shown.nodes["model:0"].n_hidden == 100


def test_nothing_overlaps_and_every_line_runs_to_the_right(project, family):
    drawing = draw(around(graph_of(project), f"model:{family['second'].pk}"), f"model:{family['second'].pk}")
    boxes = [(one.x, one.y) for one in drawing.placed]
    assert all(abs(x - p) >= WIDTH or abs(y - q) >= HEIGHT for i, (x, y) in enumerate(boxes) for p, q in boxes[:i])
    assert all(0 <= x <= drawing.width - WIDTH and 0 <= y <= drawing.height - HEIGHT for x, y in boxes)
    for line in drawing.lines:
        start, end = line[1:].split("C")[0], line.split()[-2]
        assert int(start.split()[0]) < int(end)
    assert [one.node.label for one in drawing.placed if one.is_here] == ["second@1"]


def linked(*edges: str) -> Graph:
    """Of edges such as "ab": a comes before b."""
    graph = Graph()
    for name in sorted(set("".join(edges))):
        graph.add(Node(name, name, "model"))
    for source, target in edges:
        graph.join(source, target)
    return graph


def test_a_long_line_gets_a_lane_and_runs_behind_no_node():
    graph = linked("ab", "bc", "cd", "ad", "ac", "bd")
    drawing = draw(graph, "a")
    boxes = [(one.x, one.y) for one in drawing.placed]
    for line in drawing.lines:
        straight = [(float(y), int(end)) for y, end in re.findall(r" (\d+)H(\d+)", line)]
        for (y, end), (left, top) in product(straight, boxes):
            assert not (left < end <= left + WIDTH and top <= y <= top + HEIGHT)
    assert sum(line.count("H") for line in drawing.lines) == 4  # a-d passes two columns, a-c and b-d one each


def test_lines_that_need_not_cross_do_not():
    assert n_crossings([["a", "b"], ["c", "d"]], [["a", "d"], ["b", "c"]]) == 1
    graph = linked("ae", "bd", "cf", "dg", "eh", "fg")
    drawing = draw(graph, "a")
    columns: dict[int, list] = {}
    for one in sorted(drawing.placed, key=lambda one: one.y):
        columns.setdefault(one.x, []).append(one.node.id)
    assert n_crossings([columns[x] for x in sorted(columns)], [list(edge) for edge in graph.edges]) == 0


def test_an_iteration_leads_to_all_that_it_made(project, family):
    turn = Iteration.objects.create(
        project=project, number=1, stage="done", policy_before=family["small"], snapshot=family["snapshot"], policy_run=family["run"]
    )
    shown = around(graph_of(project), f"iteration:{turn.pk}")
    assert {"iteration 1", "snapshot #1", f"run {family['run'].pk}", "first@1", "second@1"} <= names(shown)
    assert "iteration 1" in names(around(graph_of(project), f"model:{family['second'].pk}"))


def test_the_page_links_each_node_and_names_what_it_came_from(client, lead, project, family):
    Iteration.objects.create(project=project, number=1, policy_before=family["small"], policy_run=family["run"])
    client.force_login(lead)
    page = client.get(f"/projects/{project.slug}/models/lineage/?of=model:{family['first'].pk}").content.decode()
    assert f'data-node="run:{family["run"].pk}"' in page
    assert f'data-before="[&quot;run:{family["run"].pk}&quot;]"' in page
    assert f"/projects/{project.slug}/iterations/1/" in page
