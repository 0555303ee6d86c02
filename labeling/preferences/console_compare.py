"""The page that compares two snapshots of a project."""

from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from labeling.preferences.diff import Diff, difference
from labeling.preferences.errors import BeingMade
from labeling.preferences.filters import FILTERS, in_words
from labeling.preferences.models import Snapshot
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project

MOST_OFFERED = 200
# In the order of the bar: what stays in the middle, what went on its left, what came on its right.
KINDS = {
    "removed": "removed",
    "flipped": "flipped: chosen and rejected changed places",
    "changed": "changed: the same pair, with other votes, weight or margin",
    "same": "the same",
    "added": "added",
}


@dataclass(frozen=True)
class Piece:
    """A part of the bar of all pairs, in the units of its viewBox, 1,000 wide."""

    kind: str
    words: str
    n: int
    x: float
    width: float


@require_safe
@console_page()
def compare(request: HttpRequest, project: Project) -> HttpResponse:
    """Two to choose, the two newest at first; the comparison itself is asked for by the page, since it may take a while."""
    snapshots = list(project.snapshots.defer("manifest").order_by("-number")[:MOST_OFFERED])
    before, after = _chosen(request, project, snapshots)
    context = {"snapshots": snapshots, "before": before, "after": after}
    if before is None or not request.headers.get("HX-Request"):
        return show(request, "console/preferences/compare.html", project, **context)
    try:
        found = difference(before, after)
    except BeingMade as error:
        return show(request, "console/preferences/_compared.html", project, problem=str(error), **context)
    return show(
        request, "console/preferences/_compared.html", project, diff=found, pieces=pieces_of(found),
        examples=_examples(found), settings=_settings(found), **context,
    )  # fmt: skip


def _chosen(
    request: HttpRequest, project: Project, snapshots: list[Snapshot]
) -> tuple[Snapshot | None, Snapshot | None]:
    """The two asked for. Where one isn't named: the newest, against the one before it."""
    numbers = [request.GET.get(name, "") for name in ("from", "to")]
    if not any(numbers):
        pair = [snapshot.number for snapshot in snapshots[:2]][::-1]
        if len(pair) < 2:
            return None, None
    else:
        if not all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbers):
            raise Http404
        pair = list(map(int, numbers))
    found = {snapshot.number: snapshot for snapshot in project.snapshots.filter(number__in=pair)}
    if not set(pair) <= found.keys():
        raise Http404
    return found[pair[0]], found[pair[1]]


def pieces_of(diff: Diff) -> list[Piece]:
    """Every kind of pair there is, as wide as its share of all; none so narrow that one can't see it."""
    counts = {kind: diff["pairs"][kind] for kind in KINDS if diff["pairs"][kind]}
    widths = {kind: max(6.0, 1000 * n / sum(counts.values())) for kind, n in counts.items()}
    pieces, x = [], 0.0
    for kind, width in widths.items():
        width *= 1000 / sum(widths.values())
        pieces.append(Piece(kind, KINDS[kind], counts[kind], round(x, 1), round(width, 1)))
        x += width
    return pieces


def _examples(diff: Diff) -> list[dict[str, Any]]:
    order = ("flipped", "removed", "added", "changed")
    return [
        {"kind": kind, "n": diff["pairs"][kind], "rows": diff["examples"][kind]}
        for kind in order
        if diff["examples"][kind]
    ]


def _settings(diff: Diff) -> list[dict[str, str]]:
    """The filters and parts of the policy that differ, in words; those that freezing fills in by itself are left out."""
    rows = [row for row in diff["filters"] if not FILTERS[row["name"]].is_set] + diff["policy"]
    shares = diff["eval_share"]
    if shares[0] != shares[1]:
        rows.append({"name": "share kept for evaluation", "before": shares[0], "after": shares[1]})
    return [
        {"name": row["name"].replace("_", " "), **{side: in_words(row[side]) for side in ("before", "after")}}
        for row in rows
    ]
