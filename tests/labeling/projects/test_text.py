import pytest

from labeling.projects.text import canonical_json, content_hash, group_id, split_of


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_canonical_json_is_one_text_for_one_value():
    assert canonical_json({"b": [1, "ü"], "a": None}) == '{"a":null,"b":[1,"ü"]}'
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    "alike",
    ["where is order 77?", "WHERE is order 1", "Where is  order?!", "Whère is órder...", "where\nis 'order'"],
)
def test_prompts_alike_but_for_case_digits_accents_marks_and_spaces_share_a_group(alike):
    assert group_id(user(alike)) == group_id(user("Where is order 12?"))


@pytest.mark.parametrize("other", ["Where is orders?", "is Where order", "Where is", "在哪里"])
def test_other_words_are_another_group(other):
    assert group_id(user(other)) != group_id(user("Where is order 12?"))


def test_texts_without_words_are_groups_of_their_own():
    assert group_id(user("12 + 7")) != group_id(user("13 + 7"))
    assert group_id(user("在哪里")) != group_id(user("为什么"))


def test_the_system_prompt_does_not_make_another_group_but_another_prompt():
    with_system = [{"role": "system", "content": "Be kind."}, *user("Hello")]
    assert group_id(with_system) == group_id(user("Hello"))
    assert content_hash(with_system) != content_hash(user("Hello"))


def test_space_around_a_message_makes_no_other_prompt_but_its_role_does():
    assert content_hash(user(" x ")) == content_hash(user("x"))
    assert content_hash([{"role": "assistant", "content": "x"}]) != content_hash(user("x"))


def test_the_split_is_a_fixed_function_of_the_group_with_the_share_asked_for():
    groups = [group_id(user(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}")) for n in range(676)]
    assert len(set(groups)) == 676
    share = sum(split_of(group, 0.2) == "eval" for group in groups) / 676
    assert 0.15 < share < 0.25  # three standard deviations are 0.046
    assert all(split_of(group, 0.0) == "train" for group in groups)
    # A larger share keeps what was in evaluation there.
    assert all(split_of(group, 0.5) == "eval" for group in groups if split_of(group, 0.2) == "eval")
    # Written down once: snapshots of all versions must part alike.
    assert [split_of(group, 0.2) for group in ("0" * 16, "f" * 16, "a1" * 8)] == ["train", "train", "eval"]
