"""The page on the REST API names what there is."""

import re

import pytest

from labeling.annotation.models import Lease, PromptReport
from labeling.preferences.filters import DEFAULT_POLICY
from labeling.preferences.views_of_snapshots import VIEWS
from labeling.projects.bench_settings import DEFAULT_BENCH
from labeling.projects.feedback import DEFAULT_FORM, KNOWN_PARTS, check_answer, complete_form
from labeling.web.docs import FOLDER
from labeling.web.strict_json import parse

PAGE = (FOLDER / "api.md").read_text(encoding="utf-8")
NAMED = {
    "part of a form": DEFAULT_FORM,
    "setting of the bench": DEFAULT_BENCH,
    "part of a judgement": KNOWN_PARTS,
    "view": VIEWS,
    "part of a policy": DEFAULT_POLICY,
    "reason to skip": Lease.SkipReason.values,
    "reason to report": PromptReport.Reason.values,
}


@pytest.mark.parametrize("kind", NAMED)
def test_every_name_is_on_the_page(kind):
    assert [name for name in NAMED[kind] if not re.search(rf"[`\"]{name}[`\"]", PAGE)] == []


def example(beginning: str) -> dict:
    """The block of JSON that begins so."""
    [found] = re.findall(rf"```json\n({re.escape(beginning)}.*?)```", PAGE, re.DOTALL)
    return parse(found.encode(), "utf-8")


def test_the_form_and_the_bench_on_the_page_are_the_defaults():
    assert example('{"ranking": true') == DEFAULT_FORM
    assert example('{"system_prompts"') == DEFAULT_BENCH


def test_the_judgement_on_the_page_answers_a_form_that_asks_for_all():
    form, wrong = complete_form(
        {
            "strength": True, "acceptable": True, "flags": ["unsafe"], "corrections": True, "marks": ["wrong fact"],
            "demonstration": "required", "ratings": {"helpfulness": {"low": 1, "high": 5}}, "required": ["ratings", "acceptable"],
        }
    )  # fmt: skip
    judgement = example('{"ranking": [["b"], ["a"]], "strength"')
    assert wrong == {} and set(judgement) == set(KNOWN_PARTS)
    answer = check_answer(form, ["a", "b"], judgement, {"a": "Wednesday we close early.", "b": "Thursday."})
    assert set(answer.parts) == set(KNOWN_PARTS) - {"ranking", "seconds", "none_acceptable"}
