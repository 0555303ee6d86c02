"""Of which comparisons the newest reward head would learn most: for the choice of what to label next."""

from dataclasses import dataclass
from itertools import combinations

import numpy
from scipy.special import expit, xlogy

from labeling.annotation.models import TaskCompletion
from labeling.annotation.selectors import prompts_for_data
from labeling.projects.models import Project
from training.features.models import Encoded
from training.features.selectors import encoder_in_use, folder_of
from training.registry.models import ModelVersion
from training.registry.services import folder_of as folder_of_model
from training.sampling.certainty import interval, probability, verdicts
from training.sampling.feature_store import FeaturesError, FeatureStore
from training.sampling.reward_head import CONFIG_FILE, RewardHead

MOST_PROMPTS = 2000  # the newest with encoded completions
MOST_OF_A_PROMPT = 12  # completions that are compared, the newest
NODES = 32  # of the quadrature


@dataclass(frozen=True)
class UncertainPair:
    """Two completions of one prompt that nobody has compared. `probability` is that the first is preferred, with its 95 %
    interval; `verdict` is knows, leans or does_not_know; `information` is what an answer would tell of the model, in nats."""

    prompt: int
    first: int
    second: int
    probability: float
    low: float
    high: float
    verdict: str
    information: float


def head_in_use(project: Project) -> tuple[ModelVersion, RewardHead, FeatureStore] | None:
    """The newest reward head that reads what the project's encoder in use writes, and the encoder's files."""
    encoder = encoder_in_use(project)
    if encoder is None:
        return None
    try:
        store = FeatureStore(folder_of(encoder))
    except FeaturesError:
        return None
    heads = ModelVersion.objects.filter(
        project=project, kind=ModelVersion.Kind.REWARD, is_adapter=False, parent=encoder.model
    ).exclude(stage=ModelVersion.Stage.ARCHIVED)
    wanted = {"base_model_hash": store.encoding.base_model_hash, "layer": encoder.layer, "pooling": encoder.pooling}
    for model in heads.order_by("-pk")[:20]:
        if not (folder_of_model(model) / CONFIG_FILE).is_file():
            continue
        head = RewardHead.load(folder_of_model(model))
        if {name: head.config.get(name) for name in wanted} == wanted:
            return model, head, store
    return None


def uncertain_pairs(project: Project, at_most: int = 20) -> list[UncertainPair]:
    """The comparisons that would tell most, one a prompt, most first; empty where no head reads what is encoded.

    Among the newest prompts that are asked about, and completions that no task has shown together. What an answer tells is the
    mutual information of the label and the head's weights (Houlsby et al. 2011): large where the
    posterior itself is at odds, not where two completions are known to be equally good.
    """
    if (found := head_in_use(project)) is None:
        return []
    _model, head, store = found
    encoder = encoder_in_use(project)
    rows = Encoded.objects.filter(encoder=encoder, completion__prompt__in=prompts_for_data(project)).order_by("-completion")
    of_prompt: dict[int, list[tuple[int, bytes]]] = {}
    for prompt, completion, key in rows.values_list("completion__prompt", "completion", "key").iterator():
        if prompt not in of_prompt and len(of_prompt) == MOST_PROMPTS:
            continue
        if len(members := of_prompt.setdefault(prompt, [])) < MOST_OF_A_PROMPT:
            members.append((completion, bytes.fromhex(key)))
    together = _shown_together([pk for members in of_prompt.values() for pk, _key in members])
    vectors = store.get({key for members in of_prompt.values() for _pk, key in members})
    asked: list[tuple[int, int, int, bytes, bytes]] = []
    for prompt, members in of_prompt.items():
        there = sorted((pk, key) for pk, key in members if key in vectors)
        for (first, one), (second, other) in combinations(there, 2):
            if one != other and (first, second) not in together:
                asked.append((prompt, first, second, one, other))
    if not asked:
        return []
    keys = list(vectors)
    number = {key: row for row, key in enumerate(keys)}
    embeddings = numpy.stack([vectors[key] for key in keys])
    rewards, spread = head.score_embeddings(embeddings), head.deviations(embeddings)
    ones, others = ([number[row[place]] for row in asked] for place in (3, 4))
    margin, spreads = rewards[ones] - rewards[others], spread[ones] - spread[others]
    deviation = numpy.linalg.norm(spreads, axis=1)
    low, high = interval(margin, deviation)
    told = _information(margin, deviation)
    claimed, said = probability(margin, deviation), verdicts(low, high)
    best: dict[int, int] = {}
    for row in numpy.argsort(-told, kind="stable"):
        best.setdefault(asked[row][0], int(row))
        if len(best) == at_most:
            break
    return [
        UncertainPair(*asked[row][:3], float(claimed[row]), float(low[row]), float(high[row]), str(said[row]), float(told[row]))
        for row in best.values()
    ]


def _information(margin: numpy.ndarray, deviation: numpy.ndarray) -> numpy.ndarray:
    """Entropy of the label less its mean entropy under the posterior, in nats, by Gauss and Hermite."""
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(NODES)
    drawn = expit(margin[:, None] + deviation[:, None] * nodes)
    weights = weights / weights.sum()
    return _entropy(drawn @ weights) - _entropy(drawn) @ weights


def _entropy(share: numpy.ndarray) -> numpy.ndarray:
    return -xlogy(share, share) - xlogy(1 - share, 1 - share)


def _shown_together(completions: list[int]) -> set[tuple[int, int]]:
    """Pairs of these that a task shows, the lower id first."""
    in_task: dict[int, list[int]] = {}
    for start in range(0, len(completions), 500):
        found = TaskCompletion.objects.filter(completion__in=completions[start : start + 500])
        for task, completion in found.values_list("task", "completion"):
            in_task.setdefault(task, []).append(completion)
    return {pair for members in in_task.values() for pair in combinations(sorted(members), 2)}
