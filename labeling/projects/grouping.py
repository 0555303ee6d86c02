"""Near-duplicate prompts fall in one group, so that no prompt is in `train` and, slightly reworded, in `eval`.

Openings of prompts are compared as sets of 5-character shingles of their words. MinHash signatures of 64 slots (R-MinHash of
the library rensa) estimate the Jaccard similarity of two such sets with a standard error of .05 at .8; 12 bands of 5
slots find the pairs to compare (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4: a pair of
similarity .8 is found with probability .99, one of .5 with .32 and then told apart by the estimate).
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from rensa import RMinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from labeling.database.bulk import insert_rows, update_each
from labeling.projects.models import Project, Prompt, PromptSignature
from labeling.projects.text import opening_words

NEAR = 0.8  # estimated Jaccard similarity from which two prompts are near-duplicates
N_SLOTS = 64
SEED = 20_17
N_BANDS, BAND_SLOTS = 12, 5
SHINGLE_CHARS = 5
BATCH_ROWS = 2000
COMPARED_AT_ONCE = 20_000
MOVE = f"UPDATE {Prompt._meta.db_table} SET group_id = %s WHERE id = %s"


def signatures(prompts: Iterable[Sequence[dict[str, str]]]) -> numpy.ndarray:
    """MinHash signatures of the prompts' openings, uint32 of shape (prompts, 64)."""
    sets = [_shingles(opening_words(messages)) for messages in prompts]
    rows = RMinHash.digest_matrix_from_token_sets(sets, num_perm=N_SLOTS, seed=SEED).to_rows() if sets else []
    return numpy.asarray(rows, dtype="<u4").reshape(len(sets), N_SLOTS)


def regroup(project: Project) -> int:
    """Give near-duplicates the group of the oldest among them. Returns how many prompts moved into another group.

    Looks at all prompts of the project if any came in since it last did; about 100 bytes a prompt are held in memory.
    """
    _sign_new(project)
    if not PromptSignature.objects.filter(project=project, is_grouped=False).exists():
        return 0
    ids, groups, bands, fresh = _signed(project)
    names, code = numpy.unique(groups, return_inverse=True)
    kept = _merged(code, _near_pairs(ids, code, bands))
    moved = numpy.flatnonzero(kept[code] != code)
    for start in range(0, len(moved), BATCH_ROWS):
        places = moved[start : start + BATCH_ROWS]
        to = [names[group].decode() for group in kept[code[places]]]
        with transaction.atomic():
            update_each(MOVE, zip(to, ids[places].tolist(), strict=True))
    # Last, so that who was killed before finds it all to do again; and only those that were compared.
    for start in range(0, len(fresh), BATCH_ROWS):
        compared = fresh[start : start + BATCH_ROWS].tolist()
        PromptSignature.objects.filter(prompt__in=compared).update(is_grouped=True)
    return len(moved)


def near_duplicates(prompts: QuerySet[Prompt]) -> QuerySet[Prompt]:
    """Those of the prompts that are in one group with an older prompt of their project."""
    older = Prompt.objects.filter(project=OuterRef("project"), group_id=OuterRef("group_id"), pk__lt=OuterRef("pk"))
    return prompts.filter(Exists(older))


def _shingles(text: str) -> list[str]:
    return [text[start : start + SHINGLE_CHARS] for start in range(max(1, len(text) - SHINGLE_CHARS + 1))]


def _sign_new(project: Project) -> None:
    unsigned = Prompt.objects.filter(project=project, signature=None).order_by("pk").values_list("pk", "messages")
    while batch := list(unsigned[:BATCH_ROWS]):
        values = signatures(messages for _, messages in batch)
        signed = {pk: value.tobytes() for (pk, _), value in zip(batch, values, strict=True)}
        try:
            with transaction.atomic():
                rows = [(pk, project.pk, value, False) for pk, value in signed.items()]
                insert_rows(PromptSignature, ("prompt_id", "project_id", "value", "is_grouped"), rows)
        except IntegrityError:
            # Somebody signed some of them meanwhile, or removed one; the next look is at those that are left.
            there = set(Prompt.objects.filter(pk__in=signed).values_list("pk", flat=True))
            PromptSignature.objects.bulk_create(
                [PromptSignature(prompt_id=pk, project=project, value=signed[pk]) for pk in there], ignore_conflicts=True
            )


def _signed(project: Project) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Of all signed prompts, oldest first: ids, group ids, hashes of bands of shape (prompts, 12); ids not yet grouped."""
    rows = (
        PromptSignature.objects.filter(project=project)
        .order_by("prompt")
        .values_list("prompt", "prompt__group_id", "value", "is_grouped")
        .iterator(chunk_size=BATCH_ROWS)
    )
    parts: list[tuple[numpy.ndarray, ...]] = []
    while batch := list(islice(rows, BATCH_ROWS)):
        pks, names, values, grouped = zip(*batch, strict=True)
        slots = numpy.frombuffer(b"".join(values), dtype="<u4").reshape(len(batch), N_SLOTS)
        ids = numpy.asarray(pks, dtype=numpy.int64)
        parts.append((ids, numpy.asarray(names, dtype="S16"), _bands(slots), ids[~numpy.asarray(grouped)]))
    ids, names, bands, fresh = (numpy.concatenate(column) for column in zip(*parts, strict=True))
    return ids, names, bands, fresh


def _bands(slots: numpy.ndarray) -> numpy.ndarray:
    """One hash of each band; a collision costs a comparison and nothing else."""
    found = numpy.zeros((len(slots), N_BANDS), dtype=numpy.uint32)
    for place in range(BAND_SLOTS):
        found = found * numpy.uint32(0x9E3779B1) + slots[:, place : N_BANDS * BAND_SLOTS : BAND_SLOTS]
        found ^= found >> numpy.uint32(15)
    return found


def _near_pairs(ids: numpy.ndarray, code: numpy.ndarray, bands: numpy.ndarray) -> numpy.ndarray:
    """Pairs of places in `ids` that are near-duplicates, of shape (pairs, 2). Pairs of one group are left out.

    Within a bucket each is compared with the one before and with the first, not with all: groups are what is wanted.
    """
    candidates = numpy.empty((0, 2), dtype=numpy.int64)
    for band in bands.T:
        order = numpy.argsort(band, kind="stable")
        alike = band[order][1:] == band[order][:-1]
        starts = numpy.flatnonzero(numpy.concatenate([[True], ~alike]))
        first = numpy.repeat(order[starts], numpy.diff(numpy.append(starts, len(order))))
        pairs = numpy.concatenate(
            [numpy.stack([order[:-1], order[1:]], axis=1)[alike], numpy.stack([first[1:], order[1:]], axis=1)[alike]]
        )
        pairs = pairs[code[pairs[:, 0]] != code[pairs[:, 1]]]
        candidates = numpy.unique(numpy.concatenate([candidates, pairs]), axis=0)
    near = []
    for start in range(0, len(candidates), COMPARED_AT_ONCE):
        pairs = candidates[start : start + COMPARED_AT_ONCE]
        slots = _slots_of(ids[numpy.unique(pairs)])
        same = numpy.asarray([(slots[ids[one]] == slots[ids[other]]).mean() for one, other in pairs])
        near.append(pairs[same >= NEAR])
    return numpy.concatenate(near) if near else candidates


def _slots_of(prompts: numpy.ndarray) -> dict[int, numpy.ndarray]:
    found = {}
    for start in range(0, len(prompts), BATCH_ROWS):
        rows = PromptSignature.objects.filter(prompt__in=prompts[start : start + BATCH_ROWS].tolist())
        found |= {pk: numpy.frombuffer(value, dtype="<u4") for pk, value in rows.values_list("prompt", "value")}
    return found


def _merged(code: numpy.ndarray, near: numpy.ndarray) -> numpy.ndarray:
    """Of each group the one that it goes up in, or itself: of a chain of near-duplicates the oldest prompt's."""
    n = int(code.max()) + 1
    links = coo_array((numpy.ones(len(near), dtype=bool), (code[near[:, 0]], code[near[:, 1]])), shape=(n, n))
    n_chains, chain = connected_components(links, directed=False)
    oldest = numpy.full(n_chains, len(code), dtype=numpy.int64)
    numpy.minimum.at(oldest, chain[code], numpy.arange(len(code)))
    return code[oldest[chain]]
