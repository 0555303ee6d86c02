"""Figures of real and of simulated annotators, as other libraries give them; each file names which."""

import numpy
import pytest

from labeling.quality.statistics.agreement import (
    Answers,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha_interval,
    krippendorff_alpha_nominal,
    krippendorff_alpha_ordinal,
)
from labeling.quality.statistics.crowd_bt import crowd_bt
from labeling.quality.statistics.rankings import kendall_tau, kendall_w
from labeling.quality.statistics.reliability import dawid_skene
from labeling.quality.statistics.votes import FIRST, SECOND, Rankings, numbered
from tests.labeling.quality.statistics.fixtures import fixture

ALPHAS = {
    "nominal": krippendorff_alpha_nominal, "ordinal": krippendorff_alpha_ordinal, "interval": krippendorff_alpha_interval
}  # fmt: skip
GROUPS = [
    ("pandalm", "records", ("full",)),
    ("pandalm", "records", ("with_30_percent_removed", "agreement")),
    ("squality", "rank_records", ("rank_agreement",)),
    ("squality", "rating_records", ("rating_agreement",)),
    ("squality", "pair_records", ("pair_preference_agreement",)),
    ("synthetic-dawid-skene", "records", ("agreement",)),
]


def records_of(name, key, group):
    data = fixture(name)
    records, expected = data[key], data["expected"]
    for part in group:
        expected = expected[part]
    if "with_30_percent_removed" in group:
        from hashlib import sha256

        records = [
            row for row in records
            if int(sha256(f"{row['item']}|{row['annotator']}".encode()).hexdigest(), 16) % 10 >= 3
        ]  # fmt: skip
        assert len(records) == expected["n_labels"]
    return records, expected


@pytest.mark.parametrize(
    ("name", "key", "group"), GROUPS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_agreement_is_what_other_libraries_give(name, key, group):
    records, expected = records_of(name, key, group)
    unit, _ = numbered(row["item"] for row in records)
    answers = Answers.coded(unit, unit, [row["label"] for row in records])
    for level, value in expected["krippendorff_alpha"].items():
        figure = ALPHAS[level](answers)
        assert figure["value"] == pytest.approx(value, abs=1e-6), level
        assert figure["low"] < value < figure["high"]
    if "fleiss_kappa" in expected:
        assert fleiss_kappa(answers)["value"] == pytest.approx(expected["fleiss_kappa"]["value"], abs=1e-6)
    said = {(row["annotator"], row["item"]): row["label"] for row in records}
    for pair, wanted in expected.get("pairs_of_annotators", {}).items():
        one, other = pair.split("|")
        shared = [item for by, item in said if by == one and (other, item) in said]
        first, second = [said[one, item] for item in shared], [said[other, item] for item in shared]
        for weights, wanted_key in (
            ("none", "cohen_kappa"),
            ("linear", "cohen_kappa_linear"),
            ("quadratic", "cohen_kappa_quadratic"),
        ):
            figure = cohen_kappa(first, second, weights=weights)
            assert figure["value"] == pytest.approx(wanted[wanted_key], abs=1e-6), pair
            assert figure["n"] == wanted["n"]


# On SQuALITY crowd-kit stops where its bound once falls, after its eighth step; the likelihood still rises from there.
@pytest.mark.parametrize(
    ("name", "key", "part", "most"),
    [
        ("pandalm", "records", "dawid_skene", 500),
        ("squality", "pair_records", "dawid_skene_pair_preference", 8),
        ("synthetic-dawid-skene", "records", "dawid_skene", 500),
    ],
)
def test_dawid_skene_finds_crowd_kits_labels_and_posteriors(name, key, part, most):
    data = fixture(name)
    records, expected = data[key], data["expected"][part]
    item, items = numbered(row["item"] for row in records)
    annotator, annotators = numbered(row["annotator"] for row in records)
    label, labels = numbered(row["label"] for row in records)
    model = dawid_skene(item, annotator, label, max_iterations=most, leaps=most > 8)
    found = [labels[index] for index in model.posteriors.argmax(axis=1)]
    same = [expected["labels_most_likely"][name] == label for name, label in zip(items, found, strict=True)]
    assert numpy.mean(same) >= 0.99
    wanted = [expected["max_posterior"][name] for name in items]
    assert model.posteriors.max(axis=1) == pytest.approx(wanted, abs=0.01)
    assert model.priors == pytest.approx([expected["class_priors"][str(label)] for label in labels], abs=0.01)
    for number, by in enumerate(annotators):
        for true, given in ((true, given) for true in range(len(labels)) for given in range(len(labels))):
            wanted = expected["annotator_confusion"][by][str(labels[true])].get(str(labels[given]), 0.0)
            assert model.confusion[number, true, given] == pytest.approx(wanted, abs=0.03)


def test_dawid_skene_beats_the_majority_on_annotators_of_known_quality():
    data = fixture("synthetic-dawid-skene")
    item, items = numbered(row["item"] for row in data["records"])
    annotator, annotators = numbered(row["annotator"] for row in data["records"])
    label = numpy.asarray([row["label"] for row in data["records"]])
    model = dawid_skene(item, annotator, label)
    truth = numpy.asarray([data["true_labels"][name] for name in items])
    assert (model.posteriors.argmax(axis=1) == truth).mean() >= data["expected"]["dawid_skene"]["accuracy"][
        "dawid_skene"
    ] - 1e-9
    accuracy = dict(zip(annotators, numpy.einsum("k,akk->a", model.priors, model.confusion), strict=True))
    assert max(accuracy, key=accuracy.get) in ("a0", "a1")
    assert model.converged


def squality_rankings():
    data = fixture("squality")
    places = {}
    for row in data["rank_records"]:
        question, completion = row["item"].rsplit("/", 1)
        places.setdefault((question, row["annotator"]), {})[completion] = row["label"]
    names = ["bart", "bart-dpr", "human"]
    task, _ = numbered(question for question, _ in places)
    annotator, _ = numbered(by for _, by in places)
    rows = [
        (
            of_task,
            by,
            [
                [3 * of_task + names.index(name) for name in ranks if ranks[name] == rank]
                for rank in sorted(set(ranks.values()))
            ],
        )
        for of_task, by, ranks in zip(task.tolist(), annotator.tolist(), places.values(), strict=True)
    ]
    return Rankings.of(rows), data["expected"]


def test_kendalls_w_of_real_rankings():
    rankings, expected = squality_rankings()
    figure = kendall_w(rankings)
    assert figure["value"] == pytest.approx(expected["kendall_w_mean_over_questions"], abs=1e-6)
    assert figure["n"] == expected["kendall_w_questions"]
    assert figure["low"] < figure["value"] < figure["high"]
    assert 0 < kendall_tau(rankings)["value"] < figure["value"]


def test_crowd_bt_orders_the_systems_and_their_annotators_as_crowd_kit_does():
    data = fixture("squality")
    systems, wanted = ["bart", "bart-dpr", "human"], data["expected"]["crowd_bt_crowdkit"]
    pairs = [row["item"].split("|")[1:] for row in data["pair_records"]]
    first, second = (numpy.asarray([systems.index(pair[side]) for pair in pairs]) for side in (0, 1))
    annotator, _ = numbered(row["annotator"] for row in data["pair_records"])
    value = numpy.asarray([FIRST if row["label"] == 1 else SECOND for row in data["pair_records"]])
    found = crowd_bt(first, second, annotator, value)
    assert [systems[index] for index in numpy.argsort(-found.scores)] == wanted["order_best_first"]
    assert found.converged and (found.low < found.reliability).all() and (found.reliability < found.high).all()
    assert ((found.reliability > 0.5) & (found.reliability < 1)).all()


def test_bradley_terry_is_crowd_bt_of_annotators_who_never_err():
    data = fixture("squality")["expected"]["bradley_terry_systems"]
    wins = numpy.asarray(data["wins"])
    first, second = (
        numpy.concatenate([numpy.repeat(index, wins.ravel()) for index in [side]])
        for side in numpy.indices(wins.shape).reshape(2, -1)
    )
    everyone = numpy.zeros(len(first), dtype=int)
    found = crowd_bt(first, second, everyone, everyone, virtual=0.0, reliability=numpy.asarray([1.0]))
    wanted = [data["log_strength_mean_zero"]["evalica"][name] for name in data["items"]]
    assert found.scores == pytest.approx(wanted, abs=1e-3)
