"""Figures are checked against published examples and against evalica."""

import evalica
import numpy
import pandas
import pytest

from labeling.quality.statistics import (
    OTHER_WAY_ROUND,
    agreement_with_others,
    clustered_proportion,
    krippendorff_alpha_interval,
    krippendorff_alpha_nominal,
    pair_votes,
    pairwise_agreement,
    position_bias,
    wilson_interval,
)

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", the example of four observers and twelve units.
FOUR_OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def units_of(matrix):
    return [[value for value in unit if value is not None] for unit in zip(*matrix, strict=True)]


def test_alpha_of_the_textbook_example():
    figure = krippendorff_alpha_nominal([unit] for unit in units_of(FOUR_OBSERVERS))
    assert figure["value"] == pytest.approx(0.7434210526, abs=1e-9)
    assert figure["n"] == 11  # one of the twelve units has a single value
    assert figure["low"] < figure["value"] < figure["high"] <= 1


def test_alpha_of_votes_agrees_with_evalica():
    rng = numpy.random.default_rng(1)
    matrix = [
        [None if rng.random() < 0.3 else int(rng.choice([-1, 0, 1], p=[0.5, 0.1, 0.4])) for _ in range(200)]
        for _ in range(5)
    ]
    expected = evalica.alpha(pandas.DataFrame(matrix, dtype=float)).alpha
    assert krippendorff_alpha_nominal([unit] for unit in units_of(matrix))["value"] == pytest.approx(expected)


def test_pairs_of_one_task_do_not_narrow_alphas_interval():
    rng = numpy.random.default_rng(2)
    units = [[int(rng.integers(2)), int(rng.integers(2))] for _ in range(60)]
    once = krippendorff_alpha_nominal([unit] for unit in units)
    ten_alike = krippendorff_alpha_nominal([unit] * 10 for unit in units)
    width = {name: figure["high"] - figure["low"] for name, figure in (("once", once), ("ten", ten_alike))}
    assert width["ten"] == pytest.approx(width["once"], rel=0.15)


def test_alpha_of_one_answer_only_is_not_defined():
    figure = krippendorff_alpha_nominal([[[1, 1]], [[1, 1, 1]]])
    assert figure["value"] is None
    assert "every answer is the same" in figure["method"]


def test_symmetric_alpha_is_that_of_each_pair_entered_both_ways_round():
    rng = numpy.random.default_rng(4)
    # The first of a pair wins nine times in ten, and the annotators agree on that.
    units = [[1 if rng.random() < 0.9 else -1 for _ in range(2)] for _ in range(400)]
    both_ways = units + [[-vote for vote in unit] for unit in units]
    expected = evalica.alpha(pandas.DataFrame(both_ways, dtype=float).T).alpha
    symmetric = krippendorff_alpha_nominal(([unit] for unit in units), swap=OTHER_WAY_ROUND)
    assert symmetric["value"] == pytest.approx(expected, abs=0.002)
    assert symmetric["value"] > krippendorff_alpha_nominal([unit] for unit in units)["value"] + 0.3
    one_sided = krippendorff_alpha_nominal([[[1, 1]], [[1, 1]]], swap=OTHER_WAY_ROUND)
    assert one_sided["value"] == pytest.approx(1.0)


def test_alpha_over_more_tasks_than_blocks_has_an_interval():
    rng = numpy.random.default_rng(3)
    figure = krippendorff_alpha_nominal([[[int(v) for v in rng.integers(0, 2, 2)]] for _ in range(3000)])
    assert figure["low"] < 0 < figure["high"]
    assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 / 3000**0.5, rel=0.15)


def test_wilson_interval_of_the_textbook():
    # Newcombe 1998, table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = wilson_interval(10, 10)
    assert (low, high) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_a_share_over_clusters_of_one_is_wilsons():
    figure = clustered_proportion([1] * 81 + [0] * 182, [1] * 263)
    assert (figure["low"], figure["high"]) == pytest.approx((0.2553, 0.3662), abs=5e-4)


def test_agreement_counts_pairs_of_annotators_and_ties():
    # ann and ben agree on 2 of 3 pairs; cy ties all, as nobody else does, except the pair (2, 3) of ben.
    votes = pair_votes({"ann": [[1], [2], [3]], "ben": [[1], [2, 3]], "cy": [[1, 2, 3]]})
    assert votes == {
        (1, 2): {"ann": 1, "ben": 1, "cy": 0},
        (1, 3): {"ann": 1, "ben": 1, "cy": 0},
        (2, 3): {"ann": 1, "ben": 0, "cy": 0},
    }
    figure = pairwise_agreement([votes])
    assert figure["value"] == pytest.approx(3 / 9)
    assert figure["n"] == 9
    assert figure["low"] < 1 / 3 < figure["high"]
    assert "Wilson" in figure["method"]


def test_agreement_of_nothing_says_why_there_is_none():
    figure = pairwise_agreement([])
    assert (figure["value"], figure["n"]) == (None, 0)
    assert "not defined" in figure["method"]


def test_position_bias_is_the_first_places_wins_less_chance():
    first_always = position_bias([([[1], [2]], [1, 2])] * 20)
    assert first_always["value"] == pytest.approx(0.5)
    assert first_always["low"] > 0
    none = position_bias([([[1], [2]], [1, 2]), ([[2], [1]], [1, 2])] * 50)
    assert none["value"] == pytest.approx(0)
    assert none["low"] < 0 < none["high"]
    tied = position_bias([([[1, 2, 3]], [2, 1, 3])] * 9)
    assert tied["value"] == pytest.approx(0)
    assert tied["expected"] == pytest.approx(1 / 3)


def test_an_annotator_is_held_against_the_others_not_against_themselves():
    tasks = [pair_votes({"ann": [[1], [2]], "ben": [[1], [2]], "odd": [[2], [1]]})] * 4
    figures = agreement_with_others(tasks)
    assert figures["odd"]["value"] == 0
    assert figures["odd"]["n"] == 4
    # ann meets ben and odd, who are split: no majority to agree with.
    assert figures["ann"]["value"] is None


def test_interval_alpha_of_the_textbook_example():
    # The same example as above; Krippendorff 2011 gives 0.849 for interval data.
    figure = krippendorff_alpha_interval([unit] for unit in units_of(FOUR_OBSERVERS))
    assert figure["value"] == pytest.approx(0.849, abs=5e-4)
    assert figure["n"] == 11
    assert figure["low"] < figure["value"] < figure["high"] <= 1


def test_interval_alpha_of_ratings_agrees_with_evalica():
    rng = numpy.random.default_rng(5)
    quality = rng.integers(1, 6, 150)
    matrix = [
        [None if rng.random() < 0.3 else int(numpy.clip(value + rng.integers(-1, 2), 1, 5)) for value in quality]
        for _ in range(4)
    ]
    expected = evalica.alpha(pandas.DataFrame(matrix, dtype=float), distance="interval").alpha
    assert krippendorff_alpha_interval([unit] for unit in units_of(matrix))["value"] == pytest.approx(expected)


def test_interval_alpha_of_equal_values_and_of_none_say_why_there_is_none():
    assert "every answer is the same" in krippendorff_alpha_interval([[[3, 3]], [[3, 3, 3]]])["method"]
    assert "nothing was judged twice" in krippendorff_alpha_interval([[[3], [4]]])["method"]
    assert krippendorff_alpha_interval([[[1, 2], [4, 5]]])["method"] == "no interval: needs two tasks"
