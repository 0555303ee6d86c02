"""Open-Assistant's conversation trees, whole or message by message."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, Options, Part
from labeling.imports.formats.checks import (
    KEYS,
    MAX_ID,
    RowRejected,
    as_json,
    clean,
    completion_of,
    flag_of,
    loose_origin_of,
    make_record,
    messages_of,
    number_of,
    ranking_of,
    short_text,
    time_of,
)
from labeling.imports.records import Message, Record, Rejected, Text, Vote

MAX_DEPTH = 200
NOT_USABLE = {"aborted_low_grade", "halted_by_moderator"}


@dataclass(slots=True)
class Node:
    """One message of a tree. `text` is the checked message, None where it cannot be used."""

    line: int
    id: str
    data: dict[str, Any]
    parent: "Node | None" = None
    depth: int = 1
    children: list["Node"] = field(default_factory=list)
    text: Text | None = None

    @property
    def role(self) -> str:
        return {"assistant": "assistant", "prompter": "user", "user": "user"}.get(str(self.data.get("role")), "")


def read_trees(rows: list[tuple[int, dict[str, Any]]], options: Options) -> Iterator[Part]:
    """Records of one tree: of a row that holds it whole, or of the messages that lie together."""
    line, first = rows[0]
    whole = isinstance(as_json(first.get("prompt"), dict), dict)
    state = first.get("tree_state")
    if options["trees"] == "usable" and isinstance(state, str) and state in NOT_USABLE:
        raise RowRejected(f"tree_state: is {state}")
    nodes = _of_tree(line, first) if whole else _of_messages(rows)
    problems: list[Rejected] = []
    for node in nodes:
        _check(node, options, problems)
    group = short_text(first.get("message_tree_id"), "message_tree_id", MAX_ID) or nodes[0].id
    votes = _ranking_events(nodes)
    found = list(problems)
    for node in nodes:
        if node.role == "user" and node.children and all(above.text for above in _path(node)):
            found += _records(node, votes.get(node.id, []), group, options)
    if not found:
        raise RowRejected("replies: none were ranked against each other")
    yield from found


# --- from rows to nodes -------------------------------------------------------------------------
def _of_tree(line: int, data: dict[str, Any]) -> list[Node]:
    root = as_json(data.get("prompt"), dict)
    nodes: list[Node] = []
    waiting: list[tuple[Any, Node | None]] = [(root, None)]
    while waiting:
        value, parent = waiting.pop()
        if not isinstance(value, dict):
            raise RowRejected("replies: must be a list of messages")
        node = _node(line, value, parent)
        nodes.append(node)
        replies = value.get("replies")
        if replies is not None and not isinstance(replies, list):
            raise RowRejected("replies: must be a list of messages")
        waiting += [(reply, node) for reply in reversed(replies or [])]
    return nodes


def _node(line: int, data: dict[str, Any], parent: Node | None) -> Node:
    node = Node(line, short_text(data.get("message_id"), "message_id", MAX_ID), data, parent)
    if parent is not None:
        node.depth = parent.depth + 1
        parent.children.append(node)
    if node.depth > MAX_DEPTH:
        raise RowRejected(f"replies: go deeper than {MAX_DEPTH} messages")
    return node


def _of_messages(rows: list[tuple[int, dict[str, Any]]]) -> list[Node]:
    """A tree put together from its messages, which may stand in any order."""
    by_parent: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    roots = []
    for line, data in rows:
        if not isinstance(data.get("text"), str) or not isinstance(data.get("role"), str):
            raise RowRejected("text and role: must be texts, as of a message, or prompt must be a tree")
        short_text(data.get("message_id"), "message_id", MAX_ID)
        parent = short_text(data.get("parent_id"), "parent_id", MAX_ID)
        if parent:
            by_parent.setdefault(parent, []).append((line, data))
        else:
            roots.append((line, data))
    if len(roots) != 1:
        raise RowRejected(
            "parent_id: no message of this tree is its first one; the messages of a tree must lie together"
            if not roots
            else "parent_id: several messages of this tree are its first one"
        )
    nodes = [_node(*roots[0], None)]
    for node in nodes:
        if node.id:
            nodes += [_node(line, data, node) for line, data in by_parent.pop(node.id, [])]
    return nodes


# --- what may be used ---------------------------------------------------------------------------
def _check(node: Node, options: Options, problems: list[Rejected]) -> None:
    try:
        if not _is_left_out(node.data, options):
            where = f"message {node.id}: text"
            if not node.role:
                raise RowRejected(f"message {node.id}: role: must be prompter or assistant")
            node.text = completion_of(
                node.data.get("text"), where, options if node.role == "assistant" else {},
                model=node.data.get("model_name"), model_where=f"message {node.id}: model_name",
            )  # fmt: skip
    except RowRejected as error:
        problems.append(Rejected(node.line, str(error)))


def _is_left_out(data: dict[str, Any], options: Options) -> bool:
    failed_review = flag_of(data.get("review_result"), "review_result") is False
    return (
        (options["deleted"] == "leave_out" and bool(flag_of(data.get("deleted"), "deleted")))
        or (options["failed_review"] == "leave_out" and failed_review)
        or (options["synthetic"] == "leave_out" and bool(flag_of(data.get("synthetic"), "synthetic")))
        or (options["spam"] == "leave_out" and _is_spam(data.get("labels")))
    )


def _is_spam(labels: Any) -> bool:
    """More than half of those who labelled it said so. Labels are an object, or lists of names and values."""
    labels = as_json(labels, dict) or {}
    if isinstance(labels.get("name"), list) and isinstance(labels.get("value"), list):
        labels = {name: {"value": value} for name, value in zip(labels["name"], labels["value"], strict=False) if isinstance(name, str)}
    spam = labels.get("spam")
    value = spam.get("value") if isinstance(spam, dict) else None
    return isinstance(value, int | float) and value > 0.5


def _path(node: Node) -> list[Node]:
    path = []
    above: Node | None = node
    while above is not None:
        path.append(above)
        above = above.parent
    return path[::-1]


# --- what was said of it ------------------------------------------------------------------------
def _ranking_events(nodes: list[Node]) -> dict[str, list[dict[str, Any]]]:
    """Who ranked the replies to which message, by its id. An event may lie at another message of the tree."""
    found: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        events = as_json(node.data.get("events"), dict) or {}
        ranking = events.get("ranking")
        for event in ranking if isinstance(ranking, list) else []:
            if not isinstance(event, dict) or not isinstance(event.get("ranked_message_ids"), list):
                continue
            parent = event.get("ranking_parent_id")
            found.setdefault(parent if isinstance(parent, str) and parent else node.id, []).append(event)
    return found


def _records(parent: Node, events: list[dict[str, Any]], group: str, options: Options) -> Iterator[Part]:
    """Of one message's replies: by its events a record for each set of replies that somebody ranked, else by consensus."""
    replies = [node for node in parent.children if node.role == "assistant" and node.text]
    try:
        prompt = messages_of([{"role": node.role, "content": node.text.content} for node in _path(parent) if node.text], "prompt")
        by_set: dict[tuple[str, ...], list[Vote]] = {}
        usable = {node.id: index for index, node in enumerate(replies) if node.id}
        for event in events:
            if not flag_of(event.get("not_rankable"), "events.ranking.not_rankable"):
                _count_event(event, usable, by_set)
        for ids, votes in by_set.items():
            ranked = [node for node in replies if node.id in ids]
            yield _record(parent, prompt, ranked, votes, group)
        if by_set:
            return
        ranks = [number_of(node.data.get("rank"), f"message {node.id}: rank") for node in replies]
        ranked = [node for node, rank in zip(replies, ranks, strict=True) if rank is not None]
        if len(ranked) > len(KEYS):
            raise RowRejected(f"message {parent.id}: a judgement can name at most {len(KEYS)} of {len(ranked)} replies")
        if len(ranked) > 1:
            # Nobody's own vote, and named so that it isn't taken for one.
            vote = Vote({"ranking": ranking_of([-rank for rank in ranks if rank is not None])}, "consensus")
            yield _record(parent, prompt, ranked, [vote], group)
    except RowRejected as error:
        yield Rejected(parent.line, str(error))


def _count_event(event: dict[str, Any], usable: dict[str, int], by_set: dict[tuple[str, ...], list[Vote]]) -> None:
    """Adds one person's ranking. `ranked_message_ids` is in the order preferred; replies that are left out drop from it."""
    order = [id for id in event["ranked_message_ids"] if isinstance(id, str) and id in usable]
    if len(order) < 2 or len(order) > len(KEYS):
        return
    if len(set(order)) < len(order):
        raise RowRejected("events.ranking.ranked_message_ids: names a message twice")
    ids = tuple(sorted(order, key=usable.__getitem__))
    key = dict(zip(ids, KEYS, strict=False))
    user = short_text(event.get("user_id"), "events.ranking.user_id", MAX_ID)
    vote = Vote(
        {"ranking": [[key[id]] for id in order]}, user, "human", None, time_of(event.get("created_date"), "events.ranking.created_date")
    )
    by_set.setdefault(ids, []).append(vote)


def _record(parent: Node, prompt: list[Message], ranked: list[Node], votes: list[Vote], group: str) -> Record:
    origin = loose_origin_of(parent.data) | {"external_id": parent.id, "group": group}
    if isinstance(lang := parent.data.get("lang"), str) and 0 < len(lang) <= 60:
        origin["tags"] = [clean(lang, "lang")]
    return make_record(parent.line, prompt, [node.text for node in ranked if node.text], votes, **origin)


def _same_tree(data: dict[str, Any]) -> Any:
    """Rows that hold a tree whole stand alone."""
    tree = data.get("message_tree_id")
    return tree if "text" in data and isinstance(tree, str) and tree else None


def _leaves_out(name: str, what: str, default: str = "leave_out") -> Option:
    return Option(name, what, default, ("leave_out", "keep"))


FORMATS = (
    Format(
        name="oasst",
        title="Open-Assistant trees",
        describe="A tree of messages a row, or a message a row, with ranks among the replies to one message.",
        example={
            "message_tree_id": "t1", "tree_state": "ready_for_export",
            "prompt": {
                "message_id": "t1", "role": "prompter", "text": "Why is the sky blue?", "lang": "en", "replies": [
                    {"message_id": "m1", "role": "assistant", "text": "Because air scatters blue light most.", "rank": 0, "replies": []},
                    {"message_id": "m2", "role": "assistant", "text": "It mirrors the sea.", "rank": 1, "replies": []},
                ],
            },
        },
        read=read_trees,
        together=_same_tree,
        columns=(
            Column("message_tree_id", "what stays in one split"), Column("tree_state"),
            Column("prompt", "the first message, with its replies"), Column("message_id", "of rows that are messages"),
            Column("parent_id"), Column("role"), Column("text"), Column("rank", "0 is the best among its siblings"),
        ),
        options=(
            _leaves_out("deleted", "Messages that were deleted, and what answers them."),
            _leaves_out("failed_review", "Messages that did not pass the review, and what answers them."),
            _leaves_out("spam", "Messages that most who labelled them called spam, and what answers them."),
            _leaves_out("synthetic", "Messages that a model wrote, and what answers them.", "keep"),
            Option(
                "trees", "Trees that were halted by a moderator or given up for their low grade.", "usable", ("usable", "all")
            ),
            EMPTY,
        ),
    ),
)  # fmt: skip
