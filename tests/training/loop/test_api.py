import pytest

from tests.api_caller import Caller, code_of
from training.registry.models import ModelVersion


@pytest.fixture
def caller(filled_project, engineer):
    ModelVersion.objects.create(name="small", version=1, key="small@1", kind="base", folder="models/small")
    return Caller(engineer)


def test_one_iteration_at_a_time_is_begun_and_read(caller, reviewer, annotator):
    begun = caller.post("projects/support/iterations/", {"policy_before": "small@1", "config": {"quota": 0.5}})
    assert begun.status_code == 201
    iteration = begun.json()
    assert (iteration["number"], iteration["stage"], iteration["config"]["quota"]) == (1, "sampling", 0.5)
    assert iteration["policy_before"]["key"] == "small@1" and iteration["win_rate"]["value"] is None
    second = caller.post("projects/support/iterations/", {"policy_before": "small@1"})
    assert second.status_code == 409 and code_of(second) == "iteration_under_way"
    assert Caller(reviewer).get(f"iterations/{iteration['id']}/").json() == iteration
    assert [row["number"] for row in caller.get("projects/support/iterations/").json()["results"]] == [1]
    assert Caller(annotator).get(f"iterations/{iteration['id']}/").status_code == 404
    assert Caller(reviewer).post("projects/support/iterations/", {"policy_before": "small@1"}).status_code == 403


@pytest.mark.parametrize(
    "body, field",
    [({}, "policy_before"), ({"policy_before": "x"}, "policy_before"), ({"policy_before": 1}, "policy_before"),
     ({"policy_before": "small@1", "config": {"quota": 2}}, "quota"),
     ({"policy_before": "small@1", "config": {"odd": 2}}, "odd"),
     ({"policy_before": "small@1", "config": {"policy": {"output_dir": "x"}}}, "policy.output_dir"),
     ({"policy_before": "small@1", "config": {"reward_kind": ["x"]}}, "reward_kind"),
     ({"policy_before": "small@1", "config": {"snapshot_policy": []}}, "snapshot_policy"),
     ({"policy_before": "small@1", "config": {"snapshot_policy": "x"}}, "snapshot_policy"),
     ({"policy_before": "small@1", "stage": "done"}, "stage")],
)  # fmt: skip
def test_a_wrong_iteration_is_refused_by_field(caller, body, field):
    answer = caller.post("projects/support/iterations/", body)
    assert answer.status_code == 400 and field in answer.json()["error"]["fields"], answer.json()
