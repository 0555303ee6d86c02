"""Records into the project's tables, a batch in one transaction: prompts, completions, and votes as judged tasks.

What is there already is found by its content, so the same record twice adds nothing. Rows are shaped as those that the
bench makes: a task is found again by either side, and nothing that reads judgements needs to know where they are from.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from typing import Any

import orjson
from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, transaction
from django.db.models import Max, Q
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Lease, Slot, Task, TaskCompletion, new_public_id
from labeling.annotation.queue import position_of
from labeling.annotation.selectors import KEYS
from labeling.database.away import is_away
from labeling.database.bulk import alone_with, insert_rows, moment, reserve_ids, update_each
from labeling.imports.records import Record, Rejected, Vote
from labeling.projects.feedback import KNOWN_PARTS, PER_COMPLETION
from labeling.projects.models import Completion, Import, Prompt
from labeling.projects.services import pseudonym_of
from labeling.projects.text import canonical_json, content_hash, group_id, sha256
from labeling.web.strict_json import refuse_unstorable

MOST_TRIES = 5  # of a batch that collides with what others write at the same moment
MOST_VOTES_A_TASK = 1000
LONGEST = {"external_id": 120, "source": 200, "licence": 80}
LONGEST_MODEL, LONGEST_TAG = 120, 60
PARTS = tuple(part for part in KNOWN_PARTS if part not in ("ranking", "seconds"))
KINDS = (User.Kind.HUMAN, User.Kind.SIMULATED, User.Kind.MODEL)
EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)

PROMPT = (
    "id", "project_id", "external_id", "messages", "content_hash", "group_id", "source", "licence", "tags", "batch_id",
    "created_at",
)  # fmt: skip
COMPLETION = (
    "id", "prompt_id", "content", "content_hash", "model_key", "sampling", "author_id", "corrects_id", "batch_id",
    "created_at",
)  # fmt: skip
TASK = (
    "id", "public_id", "project_id", "prompt_id", "kind", "purpose", "overlap", "priority", "state", "n_judged",
    "iteration", "content_hash", "created_at",
)  # fmt: skip
SLOT = ("id", "task_id", "project_id", "number", "position", "state", "holder_id")
LEASE = (
    "id", "slot_id", "task_id", "annotator_id", "guideline_id", "order_shown", "state", "expires_at", "skip_reason",
    "skip_note", "created_at", "closed_at",
)  # fmt: skip
JUDGEMENT = (
    "project_id", "task_id", "slot_id", "lease_id", "annotator_id", "annotator_kind", "guideline_id", "submission_key",
    "body_hash", "order_shown", "ranking", "feedback", "seconds", "created_at",
)  # fmt: skip


@dataclass
class Taken:
    """What a batch came to. Rows are counted, of which one may give many records, and several one."""

    n_taken: int = 0
    n_duplicates: int = 0
    n_prompts: int = 0
    n_completions: int = 0
    n_judgements: int = 0
    rejected: list[tuple[int, Rejected]] = field(default_factory=list)  # with the place of the record


@dataclass(slots=True)
class _Said:
    """A vote as it will be stored, but for its completions, which still go by their keys."""

    vote: Vote
    ranking: list[list[str]]
    parts: dict[str, Any]
    seconds: float | None
    name: str  # of the annotator's account; empty where the source names nobody
    kind: str


@dataclass(slots=True)
class _Row:
    """A checked record with what can be worked out before the transaction."""

    record: Record
    place: int
    digest: str
    group: str
    messages: str
    tags: str
    completions: list[tuple[str, str, str, str]]  # hash, model, content, sampling
    votes: list[_Said]


@dataclass(slots=True)
class _OpenTask:
    """A task that votes of this batch are on; `pk` is 0 until it has one."""

    prompt: int
    completions: list[int]
    iteration: int
    pk: int = 0
    priority: int = 0
    last_number: int = 0
    said: dict[int, set[str]] = field(default_factory=dict)  # annotator -> what they said, as digests
    new: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass
class Checked:
    """Records that were looked at without the database, for `take`."""

    rows: list[_Row]
    places: Sequence[int]
    refused: list[tuple[int, Rejected]]


class Taker:
    """Takes records into the project of one import, which says what is added to each of them."""

    def __init__(self, record: Import) -> None:
        self.record, self.project = record, record.project
        self.guidelines = dict(self.project.guidelines.values_list("version", "pk"))
        self.accounts: dict[str, int] = {}

    def check(self, records: Sequence[Record], places: Sequence[int] | None = None) -> Checked:
        """All that can be worked out before the transaction. `places` are a Batch's; left out, each record is one row."""
        places = range(len(records)) if places is None else places
        checked = Checked([], places, [])
        for place, record in zip(places, records, strict=True):
            if row := self._checked(record, place, checked.refused):
                checked.rows.append(row)
        return checked

    def take(
        self, checked: Checked, then: Callable[[Taken], None] = lambda taken: None, sizes: Mapping[int, int] | None = None
    ) -> Taken:
        """Store a batch; `then` is done in its transaction, which is tried again where others wrote the same rows.

        `sizes` are a Batch's. Whatever `then` raises undoes the batch.
        """
        for attempt in range(1, MOST_TRIES + 1):
            try:
                with transaction.atomic():
                    taken = self._store(checked.rows)
                    taken.rejected = [*checked.refused, *taken.rejected]
                    there = set(checked.places) - self.adding - {place for place, _ in taken.rejected}
                    taken.n_taken, taken.n_duplicates = (
                        sum(sizes.get(place, 1) if sizes else 1 for place in found) for found in (self.adding, there)
                    )
                    then(taken)
                return taken
            except BaseException as error:
                self.accounts.clear()  # those made in this transaction are gone
                others_were_first = isinstance(error, IntegrityError) or is_away(error)
                if attempt == MOST_TRIES or not others_were_first:
                    raise
        raise AssertionError("unreachable")

    # --- before the transaction ---------------------------------------------------------------------
    def _checked(self, record: Record, place: int, refused: list[tuple[int, Rejected]]) -> _Row | None:
        record.source = record.source or self.record.source
        record.licence = record.licence or self.record.licence
        if self.record.tags:
            record.tags = sorted({*record.tags, *self.record.tags})
        try:
            messages = _json(record.prompt)
            completions = [self._text(item, index) for index, item in enumerate(record.completions)]
            for name, longest in LONGEST.items():
                if len(getattr(record, name)) > longest or "\x00" in getattr(record, name):
                    raise ValueError(f"{name}: must be a text of at most {longest} characters")
            if any(not 0 < len(tag) <= LONGEST_TAG for tag in record.tags):
                raise ValueError(f"tags: must be texts of at most {LONGEST_TAG} characters")
            tags = _json(record.tags)
            digest = content_hash(record.prompt)
            group = sha256("group:" + record.group)[:16] if record.group else group_id(record.prompt)
        except (ValueError, TypeError) as error:
            refused.append((place, Rejected(record.line, str(error))))
            return None
        votes = []
        for index, vote in enumerate(record.votes):
            try:
                votes.append(self._vote(vote))
            except (ValueError, TypeError) as error:
                where = f"votes[{index}]: " if len(record.votes) > 1 else ""
                refused.append((place, Rejected(record.line, f"{where}{error}")))
        return _Row(record, place, digest, group, messages, tags, completions, votes)

    def _text(self, item: Any, index: int) -> tuple[str, str, str, str]:
        if not item.content.strip():
            raise ValueError(f"completions[{index}].content: must be a text that is not empty")
        if len(item.model) > LONGEST_MODEL:
            raise ValueError(f"completions[{index}].model: must be a text of at most {LONGEST_MODEL} characters")
        if "\x00" in item.content or not item.content.isascii() or item.model:
            refuse_unstorable([item.content, item.model])
        return sha256(item.content), item.model, item.content, _json(item.sampling) if item.sampling else "{}"

    def _vote(self, vote: Vote) -> _Said:
        if vote.kind not in KINDS:
            raise ValueError(f"annotator_kind: {vote.kind!r} is none of {', '.join(KINDS)}")
        if vote.at is not None:
            vote.at = vote.at if vote.at.tzinfo else vote.at.replace(tzinfo=UTC)
            if not EARLIEST <= vote.at <= LATEST:
                raise ValueError("at: is no time of a judgement")
        if vote.annotator:
            refuse_unstorable(vote.annotator)
        _json(vote.judgement)
        body = vote.judgement
        seconds = body.get("seconds")
        parts = {name: body[name] for name in PARTS if body.get(name) not in (None, {}, [], "", False)}
        kind = User.Kind.IMPORTED if vote.kind == User.Kind.HUMAN else vote.kind
        return _Said(
            vote, body.get("ranking") or [], parts, None if seconds is None else float(seconds), self._account(vote), kind
        )

    def _account(self, vote: Vote) -> str:
        """The name of the account that stands for somebody of the source: the same person in every file of a project.

        No two names of a source give one account, and nobody can have such an account of their own: a name that
        people log in with has neither colon nor space.
        """
        name = vote.annotator.strip()
        if not name:
            return ""
        if len(name) > 100:
            name = f"{name[:80]}… {sha256(name)[:16]}"
        return f"{self._prefix(vote.kind)}:{name}"

    def _prefix(self, kind: str) -> str:
        return f"import-{self.project.pk}" + ("" if kind in ("human", User.Kind.IMPORTED) else f"-{kind}")

    # --- in the transaction -------------------------------------------------------------------------
    def _store(self, rows: Sequence[_Row]) -> Taken:
        alone_with("imports", self.project.pk)
        self.at = now()
        self.taken, self.adding = Taken(), set[int]()
        prompts = self._store_prompts(rows)
        known = {pk for digest, pk in prompts.items() if digest not in self.fresh}
        completions = self._store_completions(rows, prompts, known)
        if any(row.votes for row in rows):
            self._store_votes(rows, prompts, known, completions)
        return self.taken

    def _store_prompts(self, rows: Sequence[_Row]) -> dict[str, int]:
        """Ids by content hash. `fresh` holds the hashes of those that are new."""
        digests = {row.digest for row in rows}
        found = Prompt.objects.filter(project=self.project, content_hash__in=digests)
        ids = dict(found.values_list("content_hash", "pk"))
        fresh: dict[str, _Row] = {}
        for row in rows:
            if row.digest not in ids:
                fresh.setdefault(row.digest, row)
        self.fresh = fresh.keys()
        at, batch = moment(self.at), self.record.pk
        new = []
        for pk, (digest, row) in zip(reserve_ids(Prompt, len(fresh)), fresh.items(), strict=True):
            record = row.record
            ids[digest] = pk
            self.adding.add(row.place)
            new.append(
                (
                    pk, self.project.pk, record.external_id, row.messages, digest, row.group, record.source, record.licence,
                    row.tags, batch, at,
                )
            )  # fmt: skip
        insert_rows(Prompt, PROMPT, new)
        self.taken.n_prompts = len(new)
        return ids

    def _store_completions(
        self, rows: Sequence[_Row], prompts: dict[str, int], known: set[int]
    ) -> dict[tuple[int, str, str], int]:
        """Ids by prompt, content hash and model."""
        ids: dict[tuple[int, str, str], int] = {}
        of_known = {digest for row in rows if prompts[row.digest] in known for digest, *_ in row.completions}
        if of_known:
            found = Completion.objects.filter(prompt__in=known, content_hash__in=of_known, author=None)
            for prompt, digest, model, pk in found.values_list("prompt_id", "content_hash", "model_key", "pk"):
                ids[prompt, digest, model] = pk
        fresh: dict[tuple[int, str, str], tuple[str, str]] = {}
        for row in rows:
            prompt = prompts[row.digest]
            for digest, model, content, sampling in row.completions:
                key = (prompt, digest, model)
                if key not in ids and key not in fresh:
                    fresh[key] = (content, sampling)
                    self.adding.add(row.place)
        at, batch = moment(self.at), self.record.pk
        new = []
        for pk, (key, (content, sampling)) in zip(reserve_ids(Completion, len(fresh)), fresh.items(), strict=True):
            ids[key] = pk
            new.append((pk, key[0], content, key[1], key[2], sampling, None, None, batch, at))
        insert_rows(Completion, COMPLETION, new)
        self.taken.n_completions += len(new)
        return ids

    def _store_votes(
        self, rows: Sequence[_Row], prompts: dict[str, int], known: set[int], completions: dict[tuple[int, str, str], int]
    ) -> None:
        voted: list[tuple[_Row, str, list[int]]] = []
        tasks: dict[str, _OpenTask] = {}
        for row in rows:
            if not row.votes:
                continue
            prompt = prompts[row.digest]
            ids = [completions[prompt, digest, model] for digest, model, *_ in row.completions]
            if len(set(ids)) < len(ids):
                twice = next(index for index, pk in enumerate(ids) if pk in ids[:index])
                same = f"completions[{twice}]: is completions[{ids.index(ids[twice])}] word for word, so no vote can prefer one"
                self.taken.rejected += [(row.place, Rejected(row.record.line, same)) for _ in row.votes]
                continue
            iteration = row.record.iteration
            digest = sha256(canonical_json([prompt, sorted(ids), Task.Purpose.PREFERENCE, iteration]))
            tasks.setdefault(digest, _OpenTask(prompt, sorted(ids), iteration))
            voted.append((row, digest, ids))
        self._find_tasks({digest: task for digest, task in tasks.items() if task.prompt in known})
        self._find_accounts(said for row, *_ in voted for said in row.votes)
        written: dict[tuple[int, str, int], tuple[Any, ...]] = {}
        for row, digest, ids in voted:
            self._add_votes(row, tasks[digest], ids, written)
        self._insert_judged({digest: task for digest, task in tasks.items() if task.new})
        self._insert_written(written, known)

    def _find_tasks(self, tasks: dict[str, _OpenTask]) -> None:
        """Tasks that are there already, with what has been said of them."""
        if not tasks:
            return
        found = Task.objects.filter(project=self.project, content_hash__in=tasks)
        by_pk: dict[int, _OpenTask] = {}
        for pk, digest, priority in found.values_list("pk", "content_hash", "priority"):
            task = by_pk[pk] = tasks[digest]
            task.pk, task.priority = pk, priority
        numbers = Slot.objects.filter(task__in=by_pk).order_by().values_list("task_id").annotate(last=Max("number"))
        for pk, last in numbers:
            by_pk[pk].last_number = last
        rows = Judgement.objects.filter(task__in=by_pk).values_list("task_id", "annotator_id", "ranking", "feedback")
        for pk, annotator, ranking, feedback in rows:
            by_pk[pk].said.setdefault(annotator, set()).add(_digest_of(ranking, feedback))

    def _add_votes(
        self, row: _Row, task: _OpenTask, ids: list[int], written: dict[tuple[int, str, int], tuple[Any, ...]]
    ) -> None:
        by_key = dict(zip(KEYS, ids, strict=False))
        before: dict[str, dict[str, int]] = {}  # kind -> what unnamed annotators had said when this record came
        seen: dict[tuple[str, str], int] = {}
        for said in row.votes:
            ranking = [[by_key[key] for key in group] for group in said.ranking]
            feedback = dict(said.parts)
            for name in PER_COMPLETION:
                if name in feedback:
                    feedback[name] = {str(by_key[key]): value for key, value in feedback[name].items()}
            digest = _digest_of(ranking, feedback)
            if said.name:
                annotator = self._named(said, task, digest, row)
            else:
                # Nobody knows whose these are: as many as say the same in one record are as many people, and the same
                # record again brings nobody new.
                if said.kind not in before:
                    before[said.kind] = self._said_unnamed(task, said.kind)
                count = seen[said.kind, digest] = seen.get((said.kind, digest), 0) + 1
                is_there = count <= before[said.kind].get(digest, 0)
                annotator = None if is_there else self._next_unnamed(task, said.kind)
            if annotator is None:
                continue
            if len(task.new) >= MOST_VOTES_A_TASK:
                self._refuse(row, f"has more than {MOST_VOTES_A_TASK:,} votes on one task")
                continue
            task.said.setdefault(annotator, set()).add(digest)
            order = [by_key[key] for key in said.vote.order_shown or ()]
            task.new.append((said, annotator, digest, order, ranking, feedback))
            self.adding.add(row.place)
            texts = [(text, int(pk)) for pk, text in feedback.get("corrections", {}).items()]
            if demonstration := feedback.get("demonstration"):
                texts.append((demonstration, None))
            for text, corrects in texts:
                written.setdefault((task.prompt, sha256(text), annotator), (text, corrects))

    def _refuse(self, row: _Row, reason: str) -> None:
        self.taken.rejected.append((row.place, Rejected(row.record.line, reason)))

    def _named(self, said: _Said, task: _OpenTask, digest: str, row: _Row) -> int | None:
        """The annotator, unless they have judged this task."""
        who = f"annotator {said.vote.annotator.strip()[:80]!r}"
        person = self._person_here(said)
        annotator = person or self.accounts[said.name]
        if digest in task.said.get(annotator, ()):
            return None
        if person:
            # Else whoever may import could put words into the mouth of somebody who works here.
            reason = f"{who} is somebody of this project, whose judgements are made on the bench; this is none of them"
        elif annotator in task.said:
            reason = f"{who} has judged these completions otherwise already; the first judgement stays"
        else:
            return annotator
        self._refuse(row, reason)
        return None

    def _person_here(self, said: _Said) -> int | None:
        """The member, or once member, who goes by this name in the project's own exports."""
        name = said.vote.annotator.strip()
        return self._people_here.get(name) if name.startswith("annotator-") else None

    @cached_property
    def _people_here(self) -> dict[str, int]:
        judged = Judgement.objects.filter(project=self.project).order_by().values("annotator").distinct()
        people = User.objects.filter(Q(pk__in=judged) | Q(memberships__project=self.project)).distinct()
        return {pseudonym_of(self.project, user): user.pk for user in people}

    def _said_unnamed(self, task: _OpenTask, kind: str) -> dict[str, int]:
        if not task.said:
            return {}
        unnamed = self._unnamed(kind)
        return Counter(chain.from_iterable(said for annotator, said in task.said.items() if annotator in unnamed))

    def _next_unnamed(self, task: _OpenTask, kind: str) -> int:
        number = 1
        while True:
            name = f"{self._prefix(kind)} unnamed" + (f" {number}" if number > 1 else "")
            if name not in self.accounts:
                self._make_accounts({name: kind})
            if self.accounts[name] not in task.said:
                return self.accounts[name]
            number += 1

    def _unnamed(self, kind: str) -> set[int]:
        start = f"{self._prefix(kind)} unnamed"
        return {pk for name, pk in self.accounts.items() if name.startswith(start)}

    def _find_accounts(self, votes: Iterable[_Said]) -> None:
        wanted: dict[str, str] = {}
        unnamed: set[str] = set()
        for said in votes:
            if not said.name:
                unnamed.add(said.kind)
            elif said.name not in self.accounts and not self._person_here(said):
                wanted[said.name] = said.kind
        for kind in unnamed:
            if not self._unnamed(kind):
                start = f"{self._prefix(kind)} unnamed"
                self.accounts |= dict(User.objects.filter(username__startswith=start).values_list("username", "pk"))
                wanted[start] = kind
        self._make_accounts({name: kind for name, kind in wanted.items() if name not in self.accounts})

    def _make_accounts(self, names: dict[str, str]) -> None:
        """Accounts that nobody can log in to."""
        if not names:
            return
        found = User.objects.filter(username__in=names)
        self.accounts |= dict(found.values_list("username", "pk"))
        User.objects.bulk_create(
            [
                User(username=name, kind=kind, password=make_password(None), is_active=False)
                for name, kind in names.items()
                if name not in self.accounts
            ]
        )
        self.accounts |= dict(found.all().values_list("username", "pk"))

    def _insert_judged(self, tasks: dict[str, _OpenTask]) -> None:
        """Each vote fills a slot of its own; a task that was there wants as many judgements more."""
        fresh = {digest: task for digest, task in tasks.items() if not task.pk}
        for pk, task in zip(reserve_ids(Task, len(fresh)), fresh.values(), strict=True):
            task.pk = pk
        project, at = self.project.pk, moment(self.at)
        insert_rows(
            Task, TASK,
            [
                (
                    task.pk, new_public_id(), project, task.prompt, "ranking", Task.Purpose.PREFERENCE.value, len(task.new), 0,
                    Task.State.DONE.value, len(task.new), task.iteration, digest, at,
                )
                for digest, task in fresh.items()
            ],
        )  # fmt: skip
        insert_rows(
            TaskCompletion, ("task_id", "completion_id"), [(task.pk, pk) for task in fresh.values() for pk in task.completions]
        )
        grown = sorted((task.pk, len(task.new)) for digest, task in tasks.items() if digest not in fresh)
        update_each(
            "UPDATE annotation_task SET overlap = overlap + %s, n_judged = n_judged + %s WHERE id = %s",
            [(n, n, pk) for pk, n in grown],
        )
        n = sum(len(task.new) for task in tasks.values())
        slot_ids, lease_ids = iter(reserve_ids(Slot, n)), iter(reserve_ids(Lease, n))
        slots, leases, judgements = [], [], []
        for digest, task in tasks.items():
            for number, (said, annotator, said_digest, order, ranking, feedback) in enumerate(task.new, task.last_number + 1):
                slot, lease, vote, seconds = next(slot_ids), next(lease_ids), said.vote, said.seconds
                closed = moment(vote.at) if vote.at else at
                began = moment((vote.at or self.at) - timedelta(seconds=seconds)) if seconds else closed
                guideline = self.guidelines.get(vote.guideline_version or 0)
                shown = _json(order) if order else "[]"
                position = position_of(task.pk, task.priority)
                slots.append((slot, task.pk, project, number, position, Slot.State.DONE.value, annotator))
                leases.append(
                    (lease, slot, task.pk, annotator, guideline, shown, Lease.State.DONE.value, closed, "", "", began, closed)
                )
                judgements.append(
                    (
                        project, task.pk, slot, lease, annotator, str(said.kind), guideline, f"import:{digest}", said_digest,
                        shown, _json(ranking), _json(feedback) if feedback else "{}", seconds, closed,
                    )
                )  # fmt: skip
        insert_rows(Slot, SLOT, slots)
        insert_rows(Lease, LEASE, leases)
        insert_rows(Judgement, JUDGEMENT, judgements)
        self.taken.n_judgements = n

    def _insert_written(self, written: dict[tuple[int, str, int], tuple[Any, ...]], known: set[int]) -> None:
        """What an annotator wrote is a completion of the prompt, with them as author; the same text once."""
        if not written:
            return
        found = Completion.objects.filter(prompt__in=known, author__in={author for *_, author in written})
        there = set(found.values_list("prompt_id", "content_hash", "author_id"))
        new = {key: value for key, value in written.items() if key not in there}
        at, batch = moment(self.at), self.record.pk
        insert_rows(
            Completion, COMPLETION,
            [
                (pk, prompt, text, digest, "", "{}", author, corrects, batch, at)
                for pk, ((prompt, digest, author), (text, corrects)) in zip(
                    reserve_ids(Completion, len(new)), new.items(), strict=True
                )
            ],
        )  # fmt: skip
        self.taken.n_completions += len(new)


def _json(value: Any) -> str:
    """As a column keeps it. Raises ValueError for what no database does."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        refuse_unstorable(value)
        raise ValueError("holds a value that JSON has not") from None
    # An escape may be of NUL, and a number that is none becomes null.
    if b"\\u0000" in text:
        refuse_unstorable(value)
    return text.decode()


def _digest_of(ranking: list[list[int]], feedback: dict[str, Any]) -> str:
    """Of what was said, however ties were ordered and completions shown."""
    return sha256(canonical_json([[sorted(group) for group in ranking], feedback]))
