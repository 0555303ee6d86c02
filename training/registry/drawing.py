"""Where the nodes of a lineage graph go: columns from left to right, in which few lines cross. Pure Python.

After Sugiyama, Tagawa and Toda 1981: a node's column is its longest way from a source; within a column nodes are sorted
by the mean place of their neighbours, a few times to and fro.
"""

from dataclasses import dataclass

from training.registry.graph import Graph, Node

WIDTH, HEIGHT = 164, 46  # of a node, in user units of the SVG
GAP_X, GAP_Y = 48, 14
MARGIN = 6
SWEEPS = 4
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
    for sweep in range(SWEEPS):
        _sort(columns, graph.before if sweep % 2 == 0 else graph.after, backwards=bool(sweep % 2))
    tallest = max((len(column) for column in columns), default=0)
    height = 2 * MARGIN + tallest * HEIGHT + max(0, tallest - 1) * GAP_Y
    places = {}
    for number, column in enumerate(columns):
        free = height - 2 * MARGIN - len(column) * HEIGHT - (len(column) - 1) * GAP_Y if tallest <= MOST_CENTRED else 0
        for row, id in enumerate(column):
            places[id] = (MARGIN + number * (WIDTH + GAP_X), MARGIN + free // 2 + row * (HEIGHT + GAP_Y))
    lines = []
    for source, target in graph.edges:
        (x1, y1), (x2, y2) = places[source], places[target]
        x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
        bend = (x2 - x1) // 2
        lines.append(f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}")
    placed = [Placed(graph.nodes[id], *places[id], is_here=id == here) for column in columns for id in column]
    width = 2 * MARGIN + len(columns) * WIDTH + max(0, len(columns) - 1) * GAP_X
    return Drawing(placed, lines, width, height)


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
