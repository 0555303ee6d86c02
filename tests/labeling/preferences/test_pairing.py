"""Numbers worked out by hand."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.preferences.pairing import Vote, mean_ranks, pairs_of, select_pairs


def said(pairs) -> dict[tuple[int, int], tuple]:
    return {(pair.chosen, pair.rejected): (pair.tie, pair.n_votes, round(pair.agreement, 4)) for pair in pairs}


def test_one_ranking_of_four_makes_six_pairs_of_a_sixth_each():
    pairs = pairs_of([Vote([[3], [1], [4], [2]])])
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(1, 2), (3, 1), (1, 4), (3, 2), (4, 2), (3, 4)]
    assert all(pair.weight == pytest.approx(1 / 6) for pair in pairs)
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)


def test_a_tie_in_the_ranking_is_a_tie_of_the_pair():
    assert said(pairs_of([Vote([[2], [1, 3]])])) == {
        (2, 1): (False, 1, 1.0), (1, 3): (True, 1, 1.0), (2, 3): (False, 1, 1.0),
    }  # fmt: skip


def test_the_majority_of_votes_decides_and_ties_are_votes():
    first, second, tie = Vote([[1], [2]]), Vote([[2], [1]]), Vote([[1, 2]])
    assert said(pairs_of([first, first, second])) == {(1, 2): (False, 3, 0.6667)}
    assert said(pairs_of([second, second, second, first])) == {(2, 1): (False, 4, 0.75)}
    assert said(pairs_of([tie, tie, first])) == {(1, 2): (True, 3, 0.6667)}


def test_votes_that_are_even_make_a_tie():
    pairs = pairs_of([Vote([[1], [2]], 3), Vote([[2], [1]], 3)])
    assert said(pairs) == {(1, 2): (True, 2, 0.0)}
    assert pairs[0].strength is None


def test_strength_is_the_mean_of_those_who_agree_and_say_one():
    votes = [Vote([[1], [2]], 3), Vote([[1], [2]], 2), Vote([[1], [2]]), Vote([[2], [1]], 1)]
    assert pairs_of(votes)[0].strength == 2.5


def test_no_votes_make_no_pairs():
    assert pairs_of([]) == []


def test_mean_ranks_put_ties_in_the_middle_of_their_places():
    assert mean_ranks([Vote([[1], [2, 3], [4]])]) == {1: 0, 2: 1.5, 3: 1.5, 4: 3}
    assert mean_ranks([Vote([[1], [2]]), Vote([[2], [1]])]) == {1: 0.5, 2: 0.5}


def test_extremes_keep_the_best_against_the_worst_with_the_weight_of_the_task():
    votes = [Vote([[3], [1], [4], [2]])]
    [kept] = select_pairs(pairs_of(votes), mean_ranks(votes), "extremes")
    assert (kept.chosen, kept.rejected, kept.weight) == (3, 2, 1.0)
    tied = [Vote([[1, 2], [3], [4]])]
    kept = select_pairs(pairs_of(tied), mean_ranks(tied), "extremes")
    assert [(pair.chosen, pair.rejected, pair.weight) for pair in kept] == [(1, 4, 0.5), (2, 4, 0.5)]
    level = [Vote([[1, 2, 3]])]
    assert select_pairs(pairs_of(level), mean_ranks(level), "extremes") == []


@st.composite
def votes(draw):
    items = draw(st.integers(2, 6))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        order = draw(st.permutations(range(items)))
        ranking: list[list[int]] = []
        for item in order:
            if ranking and draw(st.booleans()):
                ranking[-1].append(item)
            else:
                ranking.append([item])
        found.append(Vote(ranking, draw(st.sampled_from([None, 1, 2, 3]))))
    return items, found


@given(votes())
def test_every_task_makes_all_its_pairs_once_and_weighs_one(task):
    items, found = task
    pairs = pairs_of(found)
    assert len(pairs) == comb(items, 2) == len({frozenset((pair.chosen, pair.rejected)) for pair in pairs})
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)
    assert all(0 <= pair.agreement <= 1 for pair in pairs)


@given(votes(), st.randoms())
def test_the_order_of_votes_and_within_ties_does_not_matter(task, chance):
    _, found = task
    shuffled = [Vote([chance.sample(group, len(group)) for group in vote.ranking], vote.strength) for vote in found]
    chance.shuffle(shuffled)
    before, after = pairs_of(found), pairs_of(shuffled)
    assert said(before) == said(after)
    assert [pair.strength for pair in before] == pytest.approx([pair.strength for pair in after])


def test_a_settled_ranking_decides_and_votes_are_counted_for_it():
    votes = [Vote([[1], [2], [3]], strength=3), Vote([[1], [2], [3]], strength=1), Vote([[2], [1], [3]], strength=2)]
    pairs = {(pair.chosen, pair.rejected): pair for pair in pairs_of(votes, [[2], [1, 3]])}
    assert (pairs[2, 1].agreement, pairs[2, 1].strength, pairs[2, 1].n_votes) == (1 / 3, 2, 3)
    assert (pairs[2, 3].agreement, pairs[2, 3].strength) == (1, 2)
    assert pairs[1, 3].tie and (pairs[1, 3].agreement, pairs[1, 3].strength) == (0, None)
    assert pairs_of([], [[1], [2]]) == []
