"""Hand-checked cases, published examples, and what must hold of any data."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from labeling.quality.statistics import (
    Rankings,
    Votes,
    agreement_with_others,
    cohen_kappa,
    fleiss_kappa,
    kendall_tau,
    kendall_w,
    krippendorff_alpha_interval,
    krippendorff_alpha_nominal,
    krippendorff_alpha_ordinal,
    pair_votes,
    pairwise_agreement,
    ranks_as_answers,
)
from labeling.quality.statistics.agreement import Answers
from labeling.quality.statistics.reliability import shares_by_annotator, sides_with_others
from tests.labeling.quality.statistics.fixtures import FLEISS_1971
from tests.labeling.quality.statistics.test_agreement import FOUR_OBSERVERS, units_of


def test_krippendorffs_textbook_example_at_each_level():
    units = [[unit] for unit in units_of(FOUR_OBSERVERS)]
    assert krippendorff_alpha_nominal(units)["value"] == pytest.approx(0.7434210526, abs=1e-9)
    assert krippendorff_alpha_interval(units)["value"] == pytest.approx(0.8491071429, abs=1e-9)
    figure = krippendorff_alpha_ordinal(units)
    assert figure["value"] == pytest.approx(0.8153875038, abs=1e-9)
    assert figure["n"] == 11
    assert figure["low"] < figure["value"] < figure["high"] <= 1


def test_fleiss_textbook_example():
    units = [[[value for value, count in enumerate(row) for _ in range(count)]] for row in FLEISS_1971]
    figure = fleiss_kappa(units)
    assert figure["value"] == pytest.approx(0.2099307044, abs=1e-9)
    assert figure["n"] == 10
    assert figure["low"] < figure["value"] < figure["high"]


def test_cohens_textbook_example_of_fifty_proposals():
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    figure = cohen_kappa(first, second)
    assert figure["value"] == pytest.approx(0.4, abs=1e-12)
    assert (figure["n"], figure["low"] < 0.4 < figure["high"]) == (50, True)
    # With two values, weights change nothing.
    assert cohen_kappa(first, second, weights="quadratic")["value"] == pytest.approx(0.4)


def test_cohens_kappa_by_hand_with_weights():
    first, second = [0, 1, 0, 2], [0, 1, 1, 0]
    table = numpy.zeros((3, 3))
    for a, b in zip(first, second, strict=True):
        table[a, b] += 1
    apart = abs(numpy.subtract.outer(numpy.arange(3), numpy.arange(3)))
    for weights, distance in (("linear", apart), ("quadratic", apart**2)):
        expected = numpy.outer(table.sum(1), table.sum(0)) / 4
        by_hand = 1 - (table * distance).sum() / (expected * distance).sum()
        assert cohen_kappa(first, second, weights=weights)["value"] == pytest.approx(by_hand)


def test_kappas_that_are_not_defined_say_why():
    assert "same one answer" in cohen_kappa([1, 1], [1, 1])["method"]
    assert "nothing in common" in cohen_kappa([], [])["method"]
    assert "every answer is the same" in fleiss_kappa([[[1, 1]], [[1, 1]]])["method"]
    assert "judged twice" in fleiss_kappa([[[1]]])["method"]
    assert "judged twice" in krippendorff_alpha_ordinal([])["method"]
    with pytest.raises(ValueError, match="2 units"):
        cohen_kappa([1, 2], [1])


def test_tau_and_w_by_hand():
    # One task: the orders abc and acb share 2 of 3 pairs: tau 1/3. Ranks sum to 2, 5, 5: spread 6, the largest 8.
    rankings = Rankings.of([(0, 0, [[1], [2], [3]]), (0, 1, [[1], [3], [2]])])
    assert kendall_tau(rankings)["value"] == pytest.approx(1 / 3)
    assert kendall_w(rankings)["value"] == pytest.approx(6 / 8)
    assert kendall_tau(rankings)["method"] == "no interval: needs two tasks"


def test_tau_and_w_without_two_rankings_say_why():
    alone = Rankings.of([(0, 0, [[1], [2]])])
    assert kendall_tau(alone)["value"] is None and "not defined" in kendall_w(alone)["method"]
    tied = Rankings.of([(0, 0, [[1, 2]]), (0, 1, [[1], [2]])])
    assert kendall_tau(tied)["value"] is None
    assert kendall_w(Rankings.of([(0, 0, [[1, 2]]), (0, 1, [[1, 2]])]))["value"] is None


def ranking_of(places):
    """Places to ordered groups of items 0, 1, ..."""
    return [[item for item, place in enumerate(places) if place == wanted] for wanted in sorted(set(places))]


PLACES = st.lists(st.integers(0, 3), min_size=4, max_size=4)
TASKS = st.lists(st.lists(PLACES, min_size=1, max_size=4), min_size=1, max_size=6)


def rankings_of(tasks, shift=0):
    rows = [
        (task, by + shift, ranking_of(places)) for task, judged in enumerate(tasks) for by, places in enumerate(judged)
    ]
    return Rankings.of(rows)


@given(TASKS)
@settings(max_examples=60, deadline=None)
def test_tau_is_scipys_averaged_over_pairs_and_tasks(tasks):
    by_task = []
    for judged in tasks:
        taus = [
            kendalltau(a, b).statistic
            for index, a in enumerate(judged)
            for b in judged[index + 1 :]
            if len(set(a)) > 1 and len(set(b)) > 1
        ]
        if taus:
            by_task.append(numpy.mean(taus))
    figure = kendall_tau(rankings_of(tasks))
    assert (figure["value"] is None) == (not by_task)
    if by_task:
        assert figure["value"] == pytest.approx(numpy.mean(by_task))
        assert figure["n"] == len(by_task)


@given(TASKS)
@settings(max_examples=60, deadline=None)
def test_votes_in_columns_say_what_votes_in_dictionaries_say(tasks):
    as_dictionaries = [pair_votes({by: ranking_of(places) for by, places in enumerate(judged)}) for judged in tasks]
    votes = Votes.drawn_from(rankings_of(tasks))
    assert pairwise_agreement(votes) == pytest.approx(pairwise_agreement(as_dictionaries), nan_ok=True)
    right, counted = sides_with_others(votes)
    found = shares_by_annotator(votes, right, counted, "nothing was judged twice")
    for annotator, figure in agreement_with_others(as_dictionaries).items():
        for part in ("value", "low", "high", "n"):
            assert found[annotator][part] == pytest.approx(figure[part])


def figures_of(rankings):
    votes = Votes.drawn_from(rankings)
    answers, ranks = Answers.of_votes(votes), ranks_as_answers(rankings)
    return [
        pairwise_agreement(votes), krippendorff_alpha_nominal(answers), krippendorff_alpha_nominal(answers, swap={1: -1, -1: 1}),
        krippendorff_alpha_ordinal(ranks), krippendorff_alpha_interval(ranks), fleiss_kappa(answers), kendall_tau(rankings), kendall_w(rankings),
    ]  # fmt: skip


@given(TASKS, st.permutations(range(4)), st.permutations(range(4)))
@settings(max_examples=40, deadline=None)
def test_other_names_for_annotators_and_completions_change_nothing(tasks, people, items):
    plain = rankings_of(tasks)
    renamed = Rankings(
        plain.task, numpy.asarray(people)[plain.annotator], plain.start, numpy.asarray(items)[plain.item], plain.rank
    )
    for number, (one, other) in enumerate(zip(figures_of(plain), figures_of(renamed), strict=True)):
        if number in (1, 5):
            continue  # nominal alpha and Fleiss' kappa depend on which completion of a pair is the first
        assert (one["value"] is None) == (other["value"] is None)
        if one["value"] is not None:
            assert one["value"] == pytest.approx(other["value"])


@given(TASKS)
@settings(max_examples=40, deadline=None)
def test_swapping_all_sides_mirrors_the_votes_and_changes_no_agreement(tasks):
    votes = Votes.drawn_from(rankings_of(tasks))
    for figure in (
        pairwise_agreement,
        lambda votes: krippendorff_alpha_nominal(Answers.of_votes(votes)),
        lambda votes: fleiss_kappa(Answers.of_votes(votes)),
    ):
        one, other = figure(votes), figure(votes.mirrored())
        assert (one["value"] is None) == (other["value"] is None)
        if one["value"] is not None:
            assert one["value"] == pytest.approx(other["value"])


@given(st.lists(PLACES, min_size=2, max_size=6), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_perfect_agreement_gives_one_wherever_it_is_defined(places, n_annotators):
    for figure in figures_of(rankings_of([[place] * n_annotators for place in places])):
        assert figure["value"] is None or figure["value"] == pytest.approx(1.0)


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=5), min_size=2, max_size=12))
@settings(max_examples=60, deadline=None)
def test_alphas_agree_with_their_definition(units):
    """Straight from the sum over pairs of answers, with the distance that belongs to each level."""
    paired = [unit for unit in units if len(unit) > 1]
    values = [value for unit in paired for value in unit]
    n = len(values)

    def between(a, b):
        low, high = min(a, b), max(a, b)
        return sum(values.count(v) for v in range(low, high + 1)) - (values.count(a) + values.count(b)) / 2

    distances = {
        krippendorff_alpha_nominal: lambda a, b: float(a != b),
        krippendorff_alpha_interval: lambda a, b: float((a - b) ** 2),
        krippendorff_alpha_ordinal: lambda a, b: between(a, b) ** 2 if a != b else 0.0,
    }
    for alpha, distance in distances.items():
        figure = alpha([[unit] for unit in units])
        if len(set(values)) < 2:
            assert figure["value"] is None
            continue
        observed = sum(distance(a, b) / (len(unit) - 1) for unit in paired for a in unit for b in unit) / n
        expected = sum(distance(a, b) for a in values for b in values) / (n * (n - 1))
        assert figure["value"] == pytest.approx(1 - observed / expected)
