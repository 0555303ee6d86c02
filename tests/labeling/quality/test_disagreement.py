"""Numbers worked out by hand."""

import pytest

from labeling.quality.disagreement import contradiction, majority_of, ranking_difference, rating_difference
from labeling.quality.statistics import pair_votes


def test_two_people_who_swap_one_pair_of_three_differ_on_a_third():
    found = ranking_difference({"ada": [[1], [2], [3]], "cem": [[2], [1], [3]]})
    assert (found.value, found.n) == (pytest.approx(1 / 3), 3)
    assert found.is_much


def test_a_tie_is_an_answer():
    found = ranking_difference({"ada": [[1, 2]], "cem": [[1], [2]], "eve": [[1, 2]]})
    # ada and eve agree, cem differs from either.
    assert (found.value, found.n) == (pytest.approx(2 / 3), 3)
    assert ranking_difference({"ada": [[1, 2]], "cem": [[1, 2]]}).value == 0


def test_one_of_five_who_differs_makes_four_pairs_of_ten():
    rankings = {name: [[1], [2]] for name in "abcd"} | {"e": [[2], [1]]}
    found = ranking_difference(rankings)
    assert (found.value, found.n) == (pytest.approx(0.4), 10)


@pytest.mark.parametrize("rankings", [{}, {"ada": [[1], [2]]}, {"ada": [[1]], "cem": [[1]]}, {"ada": [], "cem": []}])
def test_where_nothing_can_be_compared_there_is_no_figure(rankings):
    found = ranking_difference(rankings)
    assert (found.value, found.n, found.is_much) == (None, 0, False)


def test_ratings_differ_by_their_distance_on_the_scale():
    scales = {"tone": (1, 5)}
    ratings = {"ada": {"7": {"tone": 1}}, "cem": {"7": {"tone": 5}}, "eve": {"7": {"tone": 3}}}
    # |1-5|/4 + |1-3|/4 + |5-3|/4 over three pairs of people.
    found = rating_difference(ratings, scales)
    assert (found.value, found.n) == (pytest.approx((1 + 0.5 + 0.5) / 3), 3)


def test_axes_without_a_scale_and_completions_rated_once_do_not_count():
    ratings = {"ada": {"7": {"tone": 1, "gone": 1}, "8": {"tone": 2}}, "cem": {"7": {"tone": 2, "gone": 9}}}
    found = rating_difference(ratings, {"tone": (1, 5), "flat": (3, 3)})
    assert (found.value, found.n) == (0.25, 1)
    assert not found.is_much


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([1, 1], 1),
        ([1], None),
        ([1, -1], None),
        ([1, 1, -1], 1),
        ([1, 1, -1, -1], None),
        ([-1, -1, -1, 1], -1),
        ([1, 1, 1, -1, -1], None),  # 0.6
        ([0, 0, 0], 0),
        ([], None),
    ],
)
def test_a_confident_majority_is_all_or_two_thirds_of_three(votes, expected):
    assert majority_of(dict(enumerate(votes))) == expected


def test_a_model_contradicts_where_it_is_sure_of_the_other_order():
    votes = pair_votes({"ada": [[1], [2], [3]], "cem": [[1], [2], [3]]})
    assert contradiction(votes, {(1, 2): 0.05, (2, 3): 0.4}) == pytest.approx(0.95)
    assert contradiction(votes, {(2, 1): 0.97}) == pytest.approx(0.97)  # named the other way round
    assert contradiction(votes, {(1, 2): 0.1}) == pytest.approx(0.9)
    assert contradiction(votes, {(1, 2): 0.11}) is None
    assert contradiction(votes, {(8, 9): 0.0}) is None
    split = pair_votes({"ada": [[1], [2]], "cem": [[2], [1]]})
    assert contradiction(split, {(1, 2): 0.0}) is None
    tied = pair_votes({"ada": [[1, 2]], "cem": [[1, 2]]})
    assert contradiction(tied, {(1, 2): 0.0}) is None
