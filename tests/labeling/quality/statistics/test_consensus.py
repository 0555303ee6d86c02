"""Dawid-Skene, Crowd-BT and the consensus on cases that can be checked by hand or by symmetry."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.quality.statistics import Rankings, Votes, dawid_skene
from labeling.quality.statistics.consensus import (
    accuracies,
    consensus_rankings,
    fit_consensus,
    pair_probabilities,
    usual_confusion,
)
from labeling.quality.statistics.crowd_bt import components_of, crowd_bt, crowd_bt_of
from labeling.quality.statistics.votes import FIRST, SECOND, TIE
from tests.labeling.quality.statistics.test_coefficients import TASKS, rankings_of


def simulated(n_tasks=120, n_annotators=5, seed=3):
    """Each annotator votes on each pair; the last one at random."""
    rng = numpy.random.default_rng(seed)
    skill = numpy.linspace(0.95, 0.65, n_annotators)
    skill[-1] = 0.5
    rows = []
    for task in range(n_tasks):
        for by in range(n_annotators):
            order = [2 * task, 2 * task + 1] if rng.random() < skill[by] else [2 * task + 1, 2 * task]
            rows.append((task, by, [[item] for item in order]))
    return Rankings.of(rows), skill


def test_dawid_skene_of_unanimous_votes_is_sure_and_counts_every_vote():
    item = numpy.repeat(numpy.arange(10), 3)
    label = (item % 2).astype(int)
    model = dawid_skene(item, numpy.tile(numpy.arange(3), 10), label)
    assert (model.posteriors.argmax(axis=1) == numpy.arange(10) % 2).all()
    assert model.posteriors.max(axis=1).min() > 0.999
    assert model.counts.sum() == pytest.approx(30)
    assert model.confusion.sum(axis=2) == pytest.approx(numpy.ones((3, 2)))
    assert model.converged


def test_leaps_end_at_a_likelihood_no_lower_than_plain_em():
    rng = numpy.random.default_rng(5)
    item, annotator = numpy.repeat(numpy.arange(80), 4), numpy.tile(numpy.arange(4), 80)
    label = numpy.where(rng.random(320) < 0.7, item % 3, rng.integers(0, 3, 320))
    plain, quick = (dawid_skene(item, annotator, label, leaps=leaps) for leaps in (False, True))
    assert quick.log_likelihood >= plain.log_likelihood - 1e-4
    assert quick.n_iterations <= plain.n_iterations


@given(TASKS, st.integers(0, 2**12))
@settings(max_examples=40, deadline=None)
def test_pairs_entered_the_other_way_round_get_the_mirrored_answer(tasks, turned):
    """Any of the pairs may be turned, each on its own."""
    votes = Votes.drawn_from(rankings_of(tasks))
    is_turned = (turned >> (numpy.arange(votes.n_pairs) % 12)) & 1 == 1
    value = numpy.where(is_turned[votes.pair], numpy.asarray([SECOND, FIRST, TIE])[votes.value], votes.value)
    other = Votes(
        votes.task, votes.first, votes.second, votes.pair, votes.annotator, votes.ranking, value, votes.weight
    )
    one, two = fit_consensus(votes).posteriors, fit_consensus(other).posteriors
    mirrored = numpy.where(is_turned[:, None], two[:, [SECOND, FIRST, TIE]], two)
    assert one == pytest.approx(mirrored, abs=1e-6)


def test_the_confusion_of_every_annotator_is_the_same_under_exchange_of_sides():
    votes = Votes.drawn_from(simulated()[0])
    model = fit_consensus(votes)
    assert model.confusion == pytest.approx(model.confusion[:, [1, 0, 2]][:, :, [1, 0, 2]])
    assert model.priors[FIRST] == pytest.approx(model.priors[SECOND])


def test_other_names_for_annotators_change_no_posterior():
    votes = Votes.drawn_from(simulated()[0])
    people = numpy.asarray([3, 1, 4, 0, 2])
    renamed = Votes(
        votes.task,
        votes.first,
        votes.second,
        votes.pair,
        people[votes.annotator],
        votes.ranking,
        votes.value,
        votes.weight,
    )
    one, two = fit_consensus(votes), fit_consensus(renamed)
    assert one.posteriors == pytest.approx(two.posteriors, abs=1e-6)
    assert one.confusion == pytest.approx(two.confusion[people], abs=1e-6)


def test_the_careless_annotator_is_found_out_by_both_models():
    rankings, _ = simulated()
    votes = Votes.drawn_from(rankings)
    found = [figure["value"] for figure in accuracies(votes, fit_consensus(votes))]
    assert numpy.argsort(found).tolist()[0] == 4
    assert found[0] > found[3]
    assert all(figure["low"] < figure["value"] < figure["high"] for figure in accuracies(votes, fit_consensus(votes)))
    model = crowd_bt_of(votes)
    assert model.reliability.argmin() == 4
    assert (model.low < model.reliability).all() and (model.reliability < model.high).all()
    assert ((model.low > 0) & (model.high < 1)).all()
    assert model.converged


def test_one_task_can_be_answered_with_a_model_of_all():
    votes = Votes.drawn_from(simulated()[0])
    model = fit_consensus(votes)
    some = votes.of_tasks(numpy.arange(120) < 7)
    assert pair_probabilities(some, model.confusion, model.priors) == pytest.approx(model.posteriors[:7], abs=1e-12)
    newcomer = usual_confusion()
    assert newcomer.sum(axis=1) == pytest.approx(numpy.ones(3))
    assert numpy.diag(newcomer) == pytest.approx(numpy.full(3, 2 / 3))


def orders_of(rankings):
    votes = Votes.drawn_from(rankings)
    return [order for order in consensus_rankings(votes, fit_consensus(votes).posteriors)]


def test_the_consensus_of_those_who_agree_is_their_ranking():
    order = [[7], [3], [5]]
    (found,) = orders_of(Rankings.of([(task, by, order) for task in range(4) for by in range(3)]))
    assert found.items.tolist() == [[7, 3, 5]] * 4
    assert found.place.tolist() == [[0, 1, 2]] * 4
    assert found.points[0, 0] > 1.9 and found.points[0, 2] < 0.1


def test_an_even_split_is_a_tie_and_does_not_hang_on_the_order_of_entry():
    rows = [(0, 0, [[1], [2]]), (0, 1, [[2], [1]])]
    (found,) = orders_of(Rankings.of(rows))
    assert found.place.tolist() == [[0, 0]]
    assert found.points[0] == pytest.approx([0.5, 0.5])


def test_tasks_of_unlike_sizes_come_in_batches_of_their_own():
    rows = [(0, 0, [[1], [2]]), (1, 0, [[3], [4], [5]]), (2, 0, [[6], [7]])]
    assert [(order.tasks.tolist(), order.items.shape[1]) for order in orders_of(Rankings.of(rows))] == [
        ([0, 2], 2),
        ([1], 3),
    ]


def test_crowd_bts_score_of_one_pair_is_that_of_its_votes():
    # Annotators who never err, 3 votes to 1 and half a vote each way against the virtual item:
    # by symmetry the scores are x and -x; the derivative 3 - 4 s(2x) + (1/2 - s(x)) is 0.
    first, second = numpy.zeros(4, int), numpy.ones(4, int)
    found = crowd_bt(
        first,
        second,
        numpy.zeros(4, int),
        numpy.asarray([FIRST] * 3 + [SECOND]),
        virtual=0.5,
        reliability=numpy.ones(1),
    )
    x = found.scores[0]

    def s(value):
        return 1 / (1 + numpy.exp(-value))

    assert 3 - 4 * s(2 * x) + 0.5 - s(x) == pytest.approx(0, abs=1e-3)
    assert found.scores.sum() == pytest.approx(0, abs=1e-9)


def test_a_tie_is_half_a_vote_each_way():
    pair = numpy.zeros(2, int), numpy.ones(2, int), numpy.zeros(2, int)
    ties = crowd_bt(*pair, numpy.asarray([TIE, TIE]))
    both = crowd_bt(*pair, numpy.asarray([FIRST, SECOND]))
    assert ties.scores == pytest.approx(both.scores, abs=1e-4)
    assert ties.scores == pytest.approx([0, 0], abs=1e-4)


def test_scores_are_centred_in_each_set_of_linked_items():
    first, second = numpy.asarray([0, 1, 3]), numpy.asarray([1, 2, 4])
    assert components_of(5, first, second).tolist() == [0, 0, 0, 1, 1]
    found = crowd_bt(first, second, numpy.zeros(3, int), numpy.asarray([FIRST] * 3))
    assert found.scores[:3].mean() == pytest.approx(0) and found.scores[3:].mean() == pytest.approx(0)
    assert found.scores[0] > found.scores[1] > found.scores[2]


def test_the_interval_of_reliability_is_that_of_the_curvature():
    """Against a second derivative taken by differences, scores profiled out."""
    votes = Votes.drawn_from(simulated(n_tasks=30, n_annotators=3)[0])
    found = crowd_bt_of(votes, virtual=0.5)
    parts = votes.first[votes.pair], votes.second[votes.pair], votes.annotator, votes.value

    def loss(logit, scores):
        eta = 1 / (1 + numpy.exp(-logit))
        s = 1 / (1 + numpy.exp(-(scores[parts[0]] - scores[parts[1]])))
        p = eta[parts[2]] * s + (1 - eta[parts[2]]) * (1 - s)
        p = numpy.where(parts[3] == FIRST, p, 1 - p)
        at_zero = 1 / (1 + numpy.exp(-scores))
        return (
            -(votes.weight * numpy.log(p)).sum()
            - 0.5 * numpy.log(at_zero * (1 - at_zero)).sum()
            - (3 * numpy.log(eta) + numpy.log(1 - eta)).sum()
        )

    n_items, point = 60, numpy.concatenate([found.scores, numpy.log(found.reliability / (1 - found.reliability))])
    size, step = len(point), 1e-3
    hessian, unit = numpy.zeros((size, size)), numpy.eye(len(point)) * 1e-3

    def at(offset):
        moved = point + offset
        return loss(moved[n_items:], moved[:n_items])

    for i in range(size):
        for j in range(i, size):
            value = at(unit[i] + unit[j]) - at(unit[i] - unit[j]) - at(unit[j] - unit[i]) + at(-unit[i] - unit[j])
            hessian[i, j] = hessian[j, i] = value / (4 * step**2)
    error = numpy.sqrt(numpy.diag(numpy.linalg.inv(hessian)))[n_items:]
    logit_low = numpy.log(found.low / (1 - found.low))
    assert (point[n_items:] - logit_low) / 1.959963984540054 == pytest.approx(error, rel=0.02)
