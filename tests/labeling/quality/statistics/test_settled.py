"""What a reviewer settled, as a known answer in both models, on cases that can be computed by hand."""

import numpy
import pytest

from labeling.quality.statistics import Rankings, Votes, dawid_skene
from labeling.quality.statistics.confusion import confusion_of, confusions_by_annotator
from labeling.quality.statistics.consensus import fit_consensus, pair_probabilities
from labeling.quality.statistics.crowd_bt import crowd_bt, crowd_bt_of
from labeling.quality.statistics.votes import FIRST, SECOND, TIE
from tests.labeling.quality.statistics.test_consensus import simulated

# Two annotators on four items of two labels.
ITEM, BY = numpy.repeat(numpy.arange(4), 2), numpy.tile(numpy.arange(2), 4)
SAID = numpy.asarray([0, 0, 0, 1, 1, 1, 1, 0])


def test_where_all_is_known_the_confusion_is_the_share_of_each_answer():
    model = dawid_skene(ITEM, BY, SAID, known=numpy.asarray([0, 0, 1, 1]), smoothing=1.0)
    assert model.posteriors.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert model.counts.tolist() == [[[2, 0], [0, 2]], [[1, 1], [1, 1]]]
    # One vote more in each cell: 3 of 4 for the first annotator, 2 of 4 for the second.
    assert model.confusion[0] == pytest.approx(numpy.asarray([[3, 1], [1, 3]]) / 4)
    assert model.confusion[1] == pytest.approx(numpy.full((2, 2), 0.5))
    # Items with their labels, each ½ · ¾ · ½; and the prior: one vote in each cell.
    prior = 2 * numpy.log(0.75) + 2 * numpy.log(0.25) + 4 * numpy.log(0.5)
    assert model.log_likelihood == pytest.approx(4 * numpy.log(0.5 * 0.75 * 0.5) + prior)


def test_what_is_known_of_some_items_decides_the_others():
    # The two contradict each other on all items; without a word from outside neither is to be believed.
    item, by = numpy.repeat(numpy.arange(6), 2), numpy.tile(numpy.arange(2), 6)
    said = numpy.asarray([0, 1, 1, 0] * 3)
    assert dawid_skene(item, by, said, smoothing=1.0).posteriors == pytest.approx(numpy.full((6, 2), 0.5))
    model = dawid_skene(item, by, said, known=numpy.asarray([0, 1, 0, 1, -1, -1]), smoothing=1.0)
    # At the end of EM, with q the probability that the first annotator is right on an open item, of which there are two
    # (one a label): their matrices hold 2 + q + 1 votes on the diagonal of 2 + 1 + 2, and the other one's the rest.
    q = model.posteriors[4, 0]
    right = (3 + q) / 5
    assert q == pytest.approx(right**2 / (right**2 + (1 - right) ** 2), abs=1e-4)
    assert q > 0.9 and model.posteriors[5, 1] == pytest.approx(q)


def test_nothing_known_changes_no_figure():
    votes = Votes.drawn_from(simulated()[0])
    nothing = numpy.full(votes.n_pairs, -1)
    plain, same = fit_consensus(votes), fit_consensus(votes, nothing)
    assert numpy.abs(plain.posteriors - same.posteriors).max() <= 1e-12
    assert numpy.abs(plain.confusion - same.confusion).max() <= 1e-12
    scores, again = crowd_bt_of(votes), crowd_bt_of(votes, nothing)
    assert numpy.abs(scores.scores - again.scores).max() <= 1e-12
    assert numpy.abs(scores.reliability - again.reliability).max() <= 1e-12
    assert numpy.abs(scores.low - again.low).max() <= 1e-12


def test_pairs_are_settled_by_the_ranking_of_their_task():
    rows = [(0, 0, [[1], [2], [3]]), (0, 1, [[3], [2], [1]]), (1, 0, [[4], [5]])]
    votes = Votes.drawn_from(Rankings.of(rows))
    assert votes.settled_by({}) is None
    assert votes.settled_by({7: [[8], [9]]}) is None
    assert votes.settled_by({0: [[2], [1, 3]]}).tolist() == [SECOND, TIE, FIRST, -1]


def test_a_settled_pair_is_certain_and_its_votes_count_against_those_who_were_wrong():
    rankings, _ = simulated()
    votes = Votes.drawn_from(rankings)
    # The careless one is declared right wherever he differs from the first.
    order = {task: [[2 * task], [2 * task + 1]] for task in range(120)}
    for task, by, value in zip(votes.task[votes.pair], votes.annotator, votes.value, strict=True):
        if by == 4 and value == SECOND:
            order[int(task)] = [[2 * task + 1], [2 * task]]
    known = votes.settled_by({task: order[task] for task in range(0, 120, 2)})
    before, after = fit_consensus(votes), fit_consensus(votes, known)
    assert (after.posteriors[known >= 0].max(axis=1) == 1).all()
    assert (after.posteriors[known >= 0].argmax(axis=1) == known[known >= 0]).all()
    assert after.confusion[4, FIRST, FIRST] > before.confusion[4, FIRST, FIRST]
    assert after.confusion[0, FIRST, FIRST] < before.confusion[0, FIRST, FIRST]
    some = pair_probabilities(votes, after.confusion, after.priors, known)
    assert some == pytest.approx(after.posteriors, abs=1e-12)
    eta = crowd_bt_of(votes).reliability, crowd_bt_of(votes, known).reliability
    assert eta[1][4] > eta[0][4] and eta[1][0] < eta[0][0]


def test_crowd_bts_eta_on_settled_pairs_is_the_share_that_were_right():
    # Ten pairs with items of their own, all settled for the first; the annotator said so of eight. With the prior's three
    # right and one wrong, eta is (8 + 3) / (10 + 4), whatever the scores.
    first, second = numpy.arange(0, 20, 2), numpy.arange(1, 20, 2)
    said = numpy.asarray([FIRST] * 8 + [SECOND] * 2)
    found = crowd_bt(first, second, numpy.zeros(10, int), said, known=numpy.full(10, FIRST))
    assert found.reliability == pytest.approx([11 / 14], abs=1e-3)
    # Of the logit's curvature: 14 eta (1 - eta).
    error = (14 * 11 / 14 * 3 / 14) ** -0.5
    ends = numpy.log([found.low[0] / (1 - found.low[0]), found.high[0] / (1 - found.high[0])])
    assert numpy.diff(ends) == pytest.approx([2 * 1.96 * error], rel=1e-2)
    # The scores hear the settled answer alone, once, against 0.1 votes each way on either item: x and -x with
    # 1 - s(2x) = 2 · 0.1 · (2 s(x) - 1) / 2.
    x = found.scores[0]

    def s(value):
        return 1 / (1 + numpy.exp(-value))

    assert found.scores[::2] == pytest.approx(numpy.full(10, x), abs=1e-3)
    assert 1 - s(2 * x) == pytest.approx(0.1 * (2 * s(x) - 1), abs=1e-3)


def test_a_pair_settled_as_a_tie_tells_nothing_of_those_who_voted_on_it():
    pair = numpy.zeros(4, int), numpy.ones(4, int), numpy.asarray([0, 0, 1, 1])
    found = crowd_bt(*pair, numpy.asarray([FIRST, FIRST, SECOND, TIE]), known=numpy.full(4, TIE))
    assert found.reliability == pytest.approx([0.75, 0.75], abs=1e-3)  # the prior's
    assert found.scores == pytest.approx([0, 0], abs=1e-3)


def test_a_confusion_is_the_share_of_votes_by_what_holds():
    # Six pairs of unlike tasks, as known: four with a better one, two ties. One annotator.
    values = [FIRST, FIRST, SECOND, TIE, TIE, SECOND]
    order = {FIRST: lambda a, b: [[a], [b]], SECOND: lambda a, b: [[b], [a]], TIE: lambda a, b: [[a, b]]}
    votes = Votes.drawn_from(
        Rankings.of([(task, 0, order[value](2 * task, 2 * task + 1)) for task, value in enumerate(values)])
    )
    holds = numpy.asarray([FIRST, SECOND, SECOND, FIRST, TIE, TIE])
    found = confusion_of(votes, numpy.eye(3)[holds])
    shares = {truth: {said: figure["value"] for said, figure in cells.items()} for truth, cells in found.items()}
    assert shares == {"better": {"same": 0.5, "other": 0.25, "tie": 0.25}, "tie": {"better": 0.5, "tie": 0.5}}
    assert (found["better"]["same"]["n"], found["tie"]["tie"]["n"]) == (4, 2)
    assert found["better"]["same"]["low"] < 0.5 < found["better"]["same"]["high"]
    (alone,) = confusions_by_annotator(votes, numpy.eye(3)[holds])
    assert {truth: {said: figure["value"] for said, figure in cells.items()} for truth, cells in alone.items()} == shares


def test_a_confusion_without_ties_says_that_there_are_none():
    votes = Votes.drawn_from(Rankings.of([(0, 0, [[1], [2]])]))
    found = confusion_of(votes, numpy.asarray([[1.0, 0.0, 0.0]]))
    assert found["tie"]["tie"]["value"] is None and "not defined" in found["tie"]["tie"]["method"]
    assert confusions_by_annotator(votes, numpy.asarray([[1.0, 0.0, 0.0]]))[0]["tie"]["tie"]["value"] is None
