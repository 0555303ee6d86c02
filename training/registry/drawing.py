"""Where the nodes of a lineage graph go: columns from left to right, in which few lines cross. Pure Python.

After Sugiyama, Tagawa and Toda 1981: a node's column is its longest way from a source; a line over more than one column
gets a lane of its own in those between, so that it runs behind no node; within a column nodes and lanes are sorted by the
mean place of their neighbours, a few times to and fro, and the order with the fewest crossings is taken.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass
from itertools import pairwise

from training.registry.graph import Graph, Node

WIDTH, HEIGHT = 164, 46  # of a node, in user units of the SVG
GAP_X, GAP_Y = 48, 14
LANE = 4  # the height of a lane, with GAP_Y around it as around a node
MARGIN = 6
SWEEPS = 8
MOST_CENTRED = 10  # rows: columns of a taller drawing begin at its top, where one looks first
CHARACTERS, NOTE_CHARACTERS = 20, 24  # that fit into a node


@dataclass(frozen=True)
class Placed:
    node: Node
    x: int
    y: int
    is_here: bool

    @property
    def label(self) -> str:
        return _shortened(self.node.label, CHARACTERS)

    @property
    def note(self) -> str:
        return _shortened(self.node.note, NOTE_CHARACTERS)

    @property
    def label_x(self) -> int:
        return self.x + 12

    @property
    def more_x(self) -> int:
        return self.x + WIDTH - 8

    @property
    def label_y(self) -> int:
        return self.y + 20

    @property
    def note_y(self) -> int:
        return self.y + 36


@dataclass(frozen=True)
class Drawing:
    """`lines` are paths of SVG; `width` and `height` are in user units, one of which is a CSS pixel."""

    placed: list[Placed]
    lines: list[str]
    width: int
    height: int

    node_width = WIDTH
    node_height = HEIGHT


def draw(graph: Graph, here: str) -> Drawing:
    """Place every node of a graph without cycles."""
    columns = _columns(graph)
    ways = _lay_lanes(columns, graph.edges)
    columns = _sorted(columns, ways)
    heights = [_height(graph, column) for column in columns]
    tallest = max(heights, default=0)
    places: dict[str, tuple[int, int]] = {}
    for number, column in enumerate(columns):
        is_centred = max(map(len, columns)) <= MOST_CENTRED
        y = MARGIN + ((tallest - heights[number]) // 2 if is_centred else 0)
        for id in column:
            places[id] = (MARGIN + number * (WIDTH + GAP_X), y)
            y += (HEIGHT if id in graph.nodes else LANE) + GAP_Y
    placed = [Placed(graph.nodes[id], *places[id], is_here=id == here) for column in columns for id in column if id in graph.nodes]
    lines = [_line([(x, y + (HEIGHT if id in graph.nodes else LANE) // 2) for id, (x, y) in ((id, places[id]) for id in way)]) for way in ways]
    width = 2 * MARGIN + len(columns) * WIDTH + max(0, len(columns) - 1) * GAP_X
    return Drawing(placed, lines, width, 2 * MARGIN + tallest)


def n_crossings(columns: list[list[str]], ways: list[list[str]]) -> int:
    """Of lines between neighbouring columns: pairs that are in one order on the left and in the other on the right."""
    row = {id: number for column in columns for number, id in enumerate(column)}
    column_of = {id: number for number, column in enumerate(columns) for id in column}
    steps: list[list[tuple[int, int]]] = [[] for _ in columns]
    for source, target in {step for way in ways for step in pairwise(way)}:
        steps[column_of[source]].append((row[source], row[target]))
    n = 0
    for between in steps:
        seen: list[int] = []
        for _, right in sorted(between):
            n += len(seen) - bisect_right(seen, right)
            insort(seen, right)
    return n


def _height(graph: Graph, column: list[str]) -> int:
    return sum(HEIGHT if id in graph.nodes else LANE for id in column) + GAP_Y * max(0, len(column) - 1)


def _line(points: list[tuple[int, int]]) -> str:
    """A path from the right of the first point's column over those between to the left of the last one's."""
    x, y = points[0]
    path = f"M{x + WIDTH} {y}"
    for number, ((x1, y1), (x2, y2)) in enumerate(pairwise(points), start=2):
        x1 += WIDTH
        bend = (x2 - x1) // 2
        path += f"C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
        if number < len(points):
            path += f"H{x2 + WIDTH}"
    return path


def _lay_lanes(columns: list[list[str]], edges: list[tuple[str, str]]) -> list[list[str]]:
    """Each edge as the ids that its line goes by; lanes, named ~0 and on, are put into the columns between."""
    column_of = {id: number for number, column in enumerate(columns) for id in column}
    ways, n_lanes = [], 0
    for source, target in edges:
        way = [source]
        for number in range(column_of[source] + 1, column_of[target]):
            way.append(f"~{n_lanes}")
            columns[number].append(way[-1])
            n_lanes += 1
        ways.append([*way, target])
    return ways


def _sorted(columns: list[list[str]], ways: list[list[str]]) -> list[list[str]]:
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for source, target in {step: None for way in ways for step in pairwise(way)}:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    best, fewest = [list(column) for column in columns], n_crossings(columns, ways)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        _sort(columns, after if sweep % 2 else before, backwards=bool(sweep % 2))
        if (n := n_crossings(columns, ways)) < fewest:
            best, fewest = [list(column) for column in columns], n
    return best


def _columns(graph: Graph) -> list[list[str]]:
    """Each node one column right of the last of its sources; a source stands just left of what first needs it."""
    waiting = {id: len(graph.before.get(id, ())) for id in graph.nodes}
    ready = [id for id, n in waiting.items() if not n]
    column_of: dict[str, int] = {}
    ordered = []
    while ready:
        id = ready.pop()
        ordered.append(id)
        column_of[id] = 1 + max((column_of[source] for source in graph.before.get(id, ())), default=-1)
        for target in graph.after.get(id, ()):
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for id in reversed(ordered):
        if not graph.before.get(id) and graph.after.get(id):
            column_of[id] = min(column_of[target] for target in graph.after[id]) - 1
    columns: list[list[str]] = [[] for _ in range(1 + max(column_of.values(), default=-1))]
    for id in graph.nodes:
        columns[column_of[id]].append(id)
    return columns


def _sort(columns: list[list[str]], neighbours: dict[str, list[str]], *, backwards: bool) -> None:
    place = {id: row - len(column) / 2 for column in columns for row, id in enumerate(column)}
    for column in reversed(columns) if backwards else columns:
        mean = {
            id: sum(place[other] for other in neighbours[id]) / len(neighbours[id]) if neighbours.get(id) else place[id]
            for id in column
        }
        column.sort(key=mean.__getitem__)
        place |= {id: row - len(column) / 2 for row, id in enumerate(column)}


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
