"""Numbers worked out by hand."""

from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.preferences.pairing import (
    Vote,
    expected_places,
    margin_of,
    mean_ranks,
    pairs_for_training,
    pairs_of,
    select_pairs,
    without,
)


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


# --- policies -------------------------------------------------------------------------------------
def policy(**parts):
    return {"ties": "soft_label", "votes": "majority", "pairs": "all", **parts}


def seen(pairs) -> list[tuple]:
    return [(pair.chosen, pair.rejected, pair.soft_label, round(pair.weight, 4)) for pair in pairs]


FIRST, SECOND, TIE = Vote([[1], [2]], 3), Vote([[2], [1]], 1), Vote([[1, 2]])


def test_ties_are_dropped_with_their_weight_kept_as_one_half_or_shown_both_ways_round():
    votes = [Vote([[1], [2, 3]])]
    assert seen(pairs_for_training(votes, policy(ties="drop"))) == [(1, 2, 1.0, 0.3333), (1, 3, 1.0, 0.3333)]
    assert seen(pairs_for_training(votes, policy())) == [
        (1, 2, 1.0, 0.3333), (1, 3, 1.0, 0.3333), (2, 3, 0.5, 0.3333),
    ]  # fmt: skip
    both = pairs_for_training(votes, policy(ties="both"))
    assert seen(both)[2:] == [(2, 3, 0.5, 0.1667), (3, 2, 0.5, 0.1667)]
    assert all(pair.tie for pair in both[2:])


def test_each_vote_is_a_row_and_they_share_the_weight():
    found = pairs_for_training([FIRST, FIRST, SECOND, TIE], policy(votes="each"))
    assert seen(found) == [(1, 2, 1.0, 0.25), (1, 2, 1.0, 0.25), (2, 1, 1.0, 0.25), (1, 2, 0.5, 0.25)]
    assert [(pair.vote, pair.agreement, pair.strength) for pair in found] == [
        (0, 0.5, 3.0), (1, 0.5, 3.0), (2, 0.25, 1.0), (3, 0.25, None),
    ]  # fmt: skip


def test_each_votes_extremes_share_the_weight_and_who_ties_all_has_none():
    votes = [Vote([[1], [2], [3]]), Vote([[3], [1, 2]]), Vote([[1, 2, 3]])]
    found = pairs_for_training(votes, policy(votes="each", pairs="extremes"))
    assert seen(found) == [(1, 3, 1.0, 0.5), (3, 1, 1.0, 0.25), (3, 2, 1.0, 0.25)]


def test_a_soft_label_of_a_consensus_is_the_probability_given_that_it_is_no_tie():
    votes = [Vote([[1], [2], [3]])]
    probabilities = {(1, 2): (0.6, 0.2, 0.2), (1, 3): (0.1, 0.5, 0.4), (2, 3): (0.2, 0.2, 0.6)}
    found = pairs_for_training(votes, policy(votes="consensus"), probabilities=probabilities)
    assert seen(found) == [(1, 2, 0.75, 0.3333), (3, 1, 0.833333, 0.3333), (2, 3, 0.5, 0.3333)]
    assert [(pair.tie, pair.agreement) for pair in found] == [(False, 1.0), (False, 0.0), (True, 0.0)]
    # Expected wins: 1 has .7 + .3, 2 has .3 + .5, 3 has .7 + .5. So 3 against 2, which is a tie: there are no extremes.
    assert expected_places(probabilities) == {1: 1.0, 2: 1.2, 3: 0.8}
    assert pairs_for_training(votes, policy(votes="consensus", pairs="extremes"), probabilities=probabilities) == []


def test_a_pair_needs_enough_agreement_unless_a_reviewer_settled_it():
    votes = [FIRST, FIRST, SECOND]
    assert len(pairs_for_training(votes, policy(), min_agreement=2 / 3)) == 1
    assert pairs_for_training(votes, policy(), min_agreement=0.7) == []
    assert len(pairs_for_training(votes, policy(votes="each"), min_agreement=0.6)) == 3
    assert pairs_for_training(votes, policy(votes="each"), min_agreement=0.7) == []
    [settled] = pairs_for_training(votes, policy(votes="each"), settled=[[2], [1]], min_agreement=0.7)
    assert (settled.chosen, settled.agreement, settled.soft_label, settled.strength) == (2, 1 / 3, 1.0, 1.0)
    even = [FIRST, SECOND]
    assert pairs_for_training(even, policy(), min_agreement=0.1) == []


def test_a_margin_is_that_of_the_rounded_strength_halves_to_the_even_one():
    margins = {"1": 0.5, "2": 1.0, "3": 2.0}
    assert [margin_of(strength, margins) for strength in (1.0, 1.4, 1.5, 2.0, 2.5, 2.6, 3.0)] == [
        0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0,
    ]  # fmt: skip
    assert margin_of(None, margins) is None and margin_of(2.0, {}) is None and margin_of(3.0, {"1": 0.5}) is None


def test_what_takes_no_part_leaves_the_ranking_as_if_it_had_not_been_there():
    assert without([[1], [2, 3], [4]], {1, 3}) == [[2], [4]]
    assert without([[1], [2]], [1, 2]) == [] and without([[1]], ()) == [[1]]


@given(votes(), st.sampled_from(["majority", "each", "consensus"]), st.sampled_from(["soft_label", "both"]), st.data())
def test_the_pairs_of_a_task_weigh_one_under_every_policy_that_drops_nothing(task, how, ties, data):
    n_items, found = task
    probabilities = {}
    for first, second in combinations(range(n_items), 2):
        parts = data.draw(st.tuples(*[st.floats(0.01, 1)] * 3))
        probabilities[first, second] = tuple(part / sum(parts) for part in parts)
    for which in ("all", "extremes"):
        pairs = pairs_for_training(found, policy(votes=how, ties=ties, pairs=which), probabilities=probabilities)
        # Extremes can be none: all tied, or the best and the worst of all equal.
        assert sum(pair.weight for pair in pairs) == pytest.approx(1) or (which == "extremes" and not pairs)
        assert all(0.5 <= pair.soft_label <= 1 and pair.weight > 0 for pair in pairs)
        assert all(pair.tie == (pair.soft_label == 0.5) for pair in pairs) or how == "consensus"
        dropped = pairs_for_training(found, policy(votes=how, ties="drop", pairs=which), probabilities=probabilities)
        tied = sum(pair.weight for pair in pairs if pair.tie)
        assert sum(pair.weight for pair in dropped) == pytest.approx(sum(pair.weight for pair in pairs) - tied)


@given(votes())
def test_several_votes_that_say_the_same_are_one_vote(task):
    _, found = task
    alike = pairs_of([found[0]] * 3)
    one = pairs_of(found[:1])
    assert [pair._replace(n_votes=1) for pair in alike] == one
