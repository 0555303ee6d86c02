"""Near-duplicates by a real database; the similarity that is estimated is also counted exactly."""

import random

import numpy
import pytest

from labeling.projects.grouping import N_SLOTS, NEAR, _shingles, near_duplicates, regroup, signatures
from labeling.projects.models import Prompt, PromptSignature
from labeling.projects.text import content_hash, group_id, opening_words
from tests.factories import make_project, make_user

pytestmark = pytest.mark.django_db
LONG = (
    "I run a small bakery and would like to write to a customer whose birthday cake came late; the courier was held up "
    "by snow. Could you draft a short and friendly letter that offers a refund without sounding like a form?"
)


def user(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


def add(project, *prompts):
    return [
        Prompt.objects.create(
            project=project, messages=messages, content_hash=content_hash(messages), group_id=group_id(messages)
        )
        for messages in prompts
    ]


def groups_of(prompts):
    return [Prompt.objects.get(pk=prompt.pk).group_id for prompt in prompts]


@pytest.fixture
def project(db):
    return make_project(make_user("lead"))


def test_a_prompt_slightly_reworded_joins_the_group_of_the_older(project):
    slightly = LONG.replace("short and friendly", "short, friendly")
    first, other, reworded = add(project, user(LONG), user("Why is the sky blue at noon?"), user(slightly))
    assert first.group_id != reworded.group_id
    assert regroup(project) == 1
    assert groups_of([first, other, reworded]) == [first.group_id, other.group_id, first.group_id]
    assert list(near_duplicates(Prompt.objects.filter(project=project))) == [reworded]


def test_a_prompt_between_two_groups_joins_them_under_the_oldest(project):
    random.seed(11)
    words = ["".join(random.choice("abcdeghiklmnoprstu") for _ in range(7)) for _ in range(60)]
    halfway = ["another" if place in (5, 25, 45) else word for place, word in enumerate(words)]
    far = ["somehow" if place in (10, 30, 50) else word for place, word in enumerate(halfway)]
    one, two = add(project, user(" ".join(words)), user(" ".join(far)))
    assert regroup(project) == 0
    [bridge] = add(project, user(" ".join(halfway)))
    assert regroup(project) == 2
    assert set(groups_of([one, two, bridge])) == {one.group_id}


def test_prompts_of_another_project_are_not_looked_at(project):
    elsewhere = make_project(make_user("other"), slug="elsewhere")
    add(project, user(LONG))
    [copy] = add(elsewhere, user(LONG + " Please."))
    assert regroup(project) == regroup(elsewhere) == 0
    assert groups_of([copy]) == [copy.group_id]


def test_nothing_new_is_two_queries_and_nothing_else(project, django_assert_num_queries):
    add(project, *(user(f"Tell me {text}") for text in ("of rivers and lakes", "what bread is made of", "a long story")))
    assert regroup(project) == 0
    assert PromptSignature.objects.filter(project=project, is_grouped=True).count() == 3
    with django_assert_num_queries(2):
        assert regroup(project) == 0


def test_an_empty_project_has_no_groups_to_join(project):
    assert regroup(project) == 0


def test_all_turns_of_a_conversation_are_one_group_and_greetings_join_nobody():
    question = "How do I mend a bicycle tyre?"
    assert group_id(user(question)) == group_id(user(question, "With a patch.", "And without one?"))
    asks, other = user("Hello", "Hi!", question), user("Hello", "Hi!", "Which wine goes with fish?")
    assert group_id(asks) != group_id(other)
    later = [{"role": "assistant", "content": "Patch it."}, *user("Thanks, and how long does it hold?")]
    assert group_id(asks) == group_id(asks + later)


def test_the_estimate_is_as_near_to_the_true_similarity_as_theory_says():
    random.seed(4)
    letters = "abcdefghij klmnopqrst"
    errors = []
    for share in numpy.linspace(0, 0.3, 60):
        text = "".join(random.choice(letters) for _ in range(400))
        changed = "".join(random.choice(letters) if random.random() < share else char for char in text)
        one, other = signatures([user(text), user(changed)])
        sets = [set(_shingles(opening_words(user(item)))) for item in (text, changed)]
        true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        errors.append(((one == other).mean() - true) / max(0.02, (true * (1 - true) / N_SLOTS) ** 0.5))
    assert abs(numpy.mean(errors)) < 0.5
    assert numpy.std(errors) < 1.4


def test_of_many_pairs_near_ones_are_found_and_others_left(project):
    """Against every pair compared exactly: at least 97 % of those clearly near, none of those clearly apart."""
    random.seed(7)
    lexicon = ["".join(random.choice("abcdefghijklmnoprstuvwz") for _ in range(random.randint(3, 8))) for _ in range(900)]
    texts = []
    for _ in range(150):
        text = random.choices(lexicon, k=40)
        texts.append(text)
        for _ in range(random.randint(0, 3)):
            changed = random.sample(range(40), random.choice((1, 1, 2, 12)))
            texts.append([random.choice(lexicon) if place in changed else word for place, word in enumerate(text)])
    prompts = add(project, *(user(" ".join(text)) for text in texts))
    regroup(project)
    found = groups_of(prompts)
    sets = [set(_shingles(" ".join(text))) for text in texts]
    n_near = n_found = n_wrong = 0
    for one in range(len(sets)):
        for other in range(one):
            similarity = len(sets[one] & sets[other]) / len(sets[one] | sets[other])
            if similarity >= NEAR + 0.1:
                n_near += 1
                n_found += found[one] == found[other]
            elif similarity < 0.2:
                n_wrong += found[one] == found[other]
    assert n_near > 50
    assert n_found >= 0.97 * n_near
    assert n_wrong == 0
