from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from labeling.web.api import Number, StrictSerializer, Text
from training.registry.serializers import ModelReferenceSerializer
from training.runs.machines import in_words
from training.runs.models import Machine, Run, RunEvent

MAX_PROMPTS = 100_000


class NewRewardSerializer(StrictSerializer):
    """One reward: a model, a rule or a function."""

    model = Text(max_length=120, required=False, help_text="id or key of a reward model of the project")
    rule = Text(
        max_length=120, required=False,
        help_text="length:target=60[,tolerance=10][,unit=words], format:json (or json-object, list, whole-sentence, "
        "one-paragraph), repetition[:n=3]",
    )  # fmt: skip
    function = Text(max_length=200, required=False, help_text="dotted name of a function that the operator allows")
    axis = Text(max_length=60, required=False, help_text="of a reward model with several axes: the one that counts, instead of all by their weights")
    weight = Number(default=1.0, help_text="of this reward in the sum that is trained on")
    caution = Number(
        required=False, help_text="of a reward model that knows how sure it is: standard deviations taken off its reward, 0 to 10"
    )


class ExplainedMessageSerializer(StrictSerializer):
    role = Text(max_length=20)
    content = Text(max_length=40_000, trim_whitespace=False, allow_blank=True)


class RunInputsSerializer(StrictSerializer):
    prompt_ids = serializers.ListField(child=Text(max_length=20), max_length=MAX_PROMPTS, required=False)
    tags = serializers.ListField(child=Text(max_length=60), max_length=50, required=False)
    rewards = NewRewardSerializer(many=True, required=False, help_text="of runs of the kinds grpo, rloo and ppo; evaluate may have some")
    teacher = Text(max_length=120, required=False, help_text="of a distill run: id or key of another model; without it, the policy itself")
    reference = Text(max_length=120, required=False, help_text="of an evaluate run: id or key of the model to compare with")
    endpoint = Text(max_length=40, required=False, help_text="id or name of an endpoint that serves the model: sample there")
    completion_ids = serializers.ListField(
        child=Text(max_length=20), max_length=2, required=False, help_text="to explain: one or two completions of one prompt"
    )
    prompt = ExplainedMessageSerializer(many=True, required=False, help_text="to explain texts that are not stored")
    completions = serializers.ListField(
        child=Text(max_length=40_000, trim_whitespace=False), max_length=2, required=False, help_text="one or two texts"
    )


class NewRunSerializer(StrictSerializer):
    kind = Text(max_length=20, help_text="a recipe: sample, reward_head, reward, dpo, sft, kto, grpo, rloo, ppo, distill, evaluate, ...")
    spec = serializers.DictField(default=dict, help_text="options of the recipe; an unknown one is refused by name")
    snapshot = Text(max_length=20, required=False, allow_null=True, help_text="id of a snapshot of the project")
    model = Text(max_length=120, required=False, allow_null=True, help_text="id or key of the model to start from")
    inputs = RunInputsSerializer(required=False, help_text="of runs on prompts; without ids or tags: all prompts; without an endpoint a worker samples")


class MachineSerializer(serializers.Serializer):
    """A machine whose worker executes runs, as it measured itself."""

    name = serializers.CharField()
    description = serializers.SerializerMethodField(help_text="in words")
    facts = serializers.DictField(help_text="cores, memory_bytes, gpus, bf16, flops by type, copied_bytes_a_second, torch, ...")
    measured_at = serializers.DateTimeField()
    seen_at = serializers.DateTimeField()

    def get_description(self, machine: Machine) -> str:
        return in_words(machine.facts)


class RangeSerializer(serializers.Serializer):
    low = serializers.FloatField()
    likely = serializers.FloatField()
    high = serializers.FloatField()


class CostSerializer(RangeSerializer):
    currency = serializers.CharField()


class EstimateSerializer(serializers.Serializer):
    """What a run will take. Whatever nobody can tell is null."""

    machine = serializers.CharField(default=None, allow_null=True, help_text="the machine it is told for; null: none was seen")
    endpoint = serializers.CharField(default=None, allow_null=True, help_text="the server that is asked for completions")
    steps = serializers.IntegerField(default=None, allow_null=True, help_text="of the optimiser")
    rows = serializers.IntegerField(default=None, allow_null=True, help_text="pairs, texts or prompts that take part")
    tokens = RangeSerializer(default=None, allow_null=True, help_text="that go through the model, each time counted")
    seconds = RangeSerializer(default=None, allow_null=True)
    memory_bytes = RangeSerializer(default=None, allow_null=True, help_text="at its peak")
    memory_of = serializers.CharField(default=None, allow_null=True, help_text="gpu or processor")
    memory_there_bytes = serializers.FloatField(default=None, allow_null=True, help_text="that the machine has")
    disk_bytes = RangeSerializer(default=None, allow_null=True)
    cost = CostSerializer(default=None, allow_null=True, help_text="by the price of an hour, or by the endpoint's prices")
    n_past = serializers.IntegerField(default=0, help_text="past runs of the kind on the machine that the ranges go by")
    notes = serializers.ListField(child=serializers.CharField(), default=list, help_text="what is worth knowing before it starts")


class SuggestionSerializer(serializers.Serializer):
    value = serializers.JSONField()
    why = serializers.CharField()


class RunEstimateSerializer(serializers.Serializer):
    estimate = EstimateSerializer()
    wrong = serializers.DictField(child=serializers.CharField(), help_text="what keeps it from starting, by field; empty: nothing")
    suggested = serializers.DictField(
        child=SuggestionSerializer(), help_text="options that would suit the model and the machine better than the recipe's defaults"
    )


class RunRewardSerializer(serializers.Serializer):
    """What a run is rewarded for: one of model, rule, function is not null."""

    model = serializers.SerializerMethodField(help_text="id of the reward model")
    key = serializers.SerializerMethodField(help_text="key of the reward model")
    rule = serializers.SerializerMethodField()
    function = serializers.SerializerMethodField()
    axis = serializers.CharField(default="", help_text="of a reward model with several axes; empty: all by their weights")
    weight = serializers.FloatField()
    caution = serializers.FloatField(default=0.0, help_text="standard deviations taken off a reward model's reward")

    def get_model(self, reward: dict[str, Any]) -> str | None:
        return str(reward["model"]) if "model" in reward else None

    def get_key(self, reward: dict[str, Any]) -> str | None:
        return reward.get("key")

    def get_rule(self, reward: dict[str, Any]) -> str | None:
        return reward.get("rule")

    def get_function(self, reward: dict[str, Any]) -> str | None:
        return reward.get("function")


class RunSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    kind = serializers.CharField()
    state = serializers.CharField(help_text=", ".join(Run.State.values))
    spec = serializers.DictField()
    snapshot = serializers.CharField(source="snapshot_id", allow_null=True)
    model = ModelReferenceSerializer(allow_null=True)
    other_model = ModelReferenceSerializer(allow_null=True, help_text="the teacher of a distill run, the reference of an evaluate run")
    rewards = serializers.SerializerMethodField(help_text="of runs that learn from rewards, or are judged by them")
    output_model = ModelReferenceSerializer(allow_null=True)
    progress = serializers.FloatField(help_text="share done, 0 to 1")
    status_text = serializers.CharField()
    error = serializers.CharField()
    attempts = serializers.IntegerField()
    result = serializers.DictField(
        help_text="metrics, figures, dataset, versions and more by kind; of reward models `report`, as GET /models/{id}/report/ has it, "
        "which lists leave out"
    )
    disk_bytes = serializers.IntegerField(help_text="of its folder, when it was last counted")
    checkpoint_bytes = serializers.IntegerField(help_text="of that, of its checkpoints")
    checkpoints_deleted_at = serializers.DateTimeField(allow_null=True, help_text="from then on a resumed run begins anew")
    estimate = EstimateSerializer(help_text="what it would take, as was told before it was queued")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    heartbeat_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)

    def to_representation(self, run: Run) -> dict[str, Any]:
        shown = super().to_representation(run)
        if self.parent is not None:  # one of many
            shown["result"] = {name: value for name, value in shown["result"].items() if name != "report"}
        return shown

    @extend_schema_field(RunRewardSerializer(many=True))
    def get_rewards(self, run: Run) -> list[dict[str, Any]]:
        return RunRewardSerializer(run.inputs.get("rewards", []), many=True).data


class ExplainedPieceSerializer(serializers.Serializer):
    text = serializers.CharField()
    value = serializers.FloatField(allow_null=True, help_text="logits that it adds; null where the model does not read it")


class ExplainedSentenceSerializer(serializers.Serializer):
    text = serializers.CharField()
    effect = serializers.FloatField(help_text="logits by which the reward falls without it")


class ExplainedCompletionSerializer(serializers.Serializer):
    """Why one completion has its reward. The pieces joined are its text, and their values add up to reward minus baseline."""

    completion_id = serializers.CharField(allow_null=True)
    method = serializers.CharField(help_text="exact or integrated_gradients")
    reward = serializers.FloatField(help_text="in logits")
    baseline = serializers.FloatField(help_text="the reward of a completion that says nothing")
    gap = serializers.FloatField(help_text="what the values leave unexplained")
    is_complete = serializers.BooleanField(help_text="whether the gap is at most 5 %, or 0.02")
    steps = serializers.IntegerField(help_text="points on the path of integrated gradients; 0: exact")
    deviation = serializers.FloatField(allow_null=True, help_text="standard deviation of the reward, where the model knows it")
    n_tokens = serializers.IntegerField()
    n_tokens_cut = serializers.IntegerField(help_text="beyond what the model reads")
    pieces = ExplainedPieceSerializer(many=True)
    sentences = ExplainedSentenceSerializer(many=True, help_text="empty for one sentence")


class ExplainedDifferenceSerializer(serializers.Serializer):
    value = serializers.FloatField(help_text="reward of the first minus the second, in logits")
    deviation = serializers.FloatField(allow_null=True)


class ExplanationSerializer(serializers.Serializer):
    completions = ExplainedCompletionSerializer(many=True)
    difference = ExplainedDifferenceSerializer(allow_null=True, help_text="of two completions, when the run is done")


class RunEventSerializer(serializers.Serializer):
    """One line of the run's events.jsonl. What the recipe wrote beside these stands next to them."""

    id = serializers.CharField(help_text="give the last one as ?after= for what came later")
    type = serializers.CharField()
    step = serializers.IntegerField(allow_null=True)
    at = serializers.DateTimeField()

    def to_representation(self, event: RunEvent) -> dict[str, Any]:
        at = self.fields["at"].to_representation(event.at)
        return {**event.payload, "id": str(event.number), "type": event.type, "step": event.step, "at": at}
