"""How the figures of quality look over REST. They are answered as they are stored, so these only describe them."""

from typing import Any

from rest_framework import serializers

Field = serializers.Field


class Described(serializers.Serializer):
    """Describes a value that is answered as it is."""

    def to_representation(self, value: Any) -> Any:
        return value


class FigureSerializer(Described):
    value = serializers.FloatField(allow_null=True, help_text="null where it isn't defined, for the reason in `method`")
    low = serializers.FloatField(allow_null=True, help_text="of the 95 % interval")
    high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField(help_text="what was counted: comparisons, pairs, tasks, answers; `method` says how")
    method = serializers.CharField()


class PositionBiasSerializer(FigureSerializer):
    share = serializers.FloatField(required=False, help_text="of wins")
    expected = serializers.FloatField(required=False, help_text="share of wins by chance")


class GoldFigureSerializer(FigureSerializer):
    mean_score = serializers.FloatField(allow_null=True)


class GoldOfAnnotatorSerializer(GoldFigureSerializer):
    window = GoldFigureSerializer(help_text="the same of the newest answers, by which people are paused")


class RepeatsSerializer(Described):
    self_consistency = FigureSerializer(help_text="share of pairs of which the same was said both times")
    position_bias = PositionBiasSerializer(help_text="the texts' worth cancelled out: see the docs")


class TwoFiguresSerializer(Described):
    n_tasks = serializers.IntegerField()
    pairwise_raw = FigureSerializer()
    krippendorff_alpha_symmetric = FigureSerializer()


class PartSerializer(TwoFiguresSerializer):
    to = serializers.DateTimeField(help_text="when the newest ranking of its last task came")

    def get_fields(self) -> dict[str, Field]:
        # `from` is a word of Python's.
        return {"from": serializers.DateTimeField(), **super().get_fields()}


class PartByTimeSerializer(Described):
    seconds_from = serializers.FloatField()
    seconds_to = serializers.FloatField()
    seconds_median = serializers.FloatField()
    n_rankings = serializers.IntegerField()
    agreement_with_consensus = FigureSerializer()


class ConfusionOfBetterSerializer(Described):
    same = FigureSerializer(help_text="say that the better one is better")
    other = FigureSerializer(help_text="say that the other one is")
    tie = FigureSerializer(help_text="say that they are tied")


class ConfusionOfTieSerializer(Described):
    better = FigureSerializer(help_text="say of either that it is better")
    tie = FigureSerializer()


class ConfusionSerializer(Described):
    better = ConfusionOfBetterSerializer(help_text="shares of votes on pairs of which one is better by the model")
    tie = ConfusionOfTieSerializer(help_text="shares of votes on pairs that are tied by the model")


class BinSerializer(Described):
    low = serializers.FloatField(help_text="share of comparisons that differ, from")
    high = serializers.FloatField(help_text="to, without")
    n_open = serializers.IntegerField(help_text="tasks that nobody settled")
    n_settled = serializers.IntegerField()


class DisagreementFiguresSerializer(Described):
    open = FigureSerializer(help_text="share of comparisons of two rankings that differ, over tasks that nobody settled")
    histogram = BinSerializer(many=True, help_text="of tasks that two or more ranked")


class DaySerializer(Described):
    day = serializers.DateField()
    n = serializers.IntegerField()


class AdjudicationFiguresSerializer(Described):
    outcomes = serializers.DictField(child=serializers.IntegerField(), help_text="outcome to number of tasks")
    by_day = DaySerializer(many=True, help_text="tasks settled; the newest 60 days on which there were any")
    agreement = FigureSerializer(help_text="share of votes on settled pairs that say what was settled")


class GoldPartSerializer(Described):
    to = serializers.DateTimeField()
    right = FigureSerializer(help_text="share of answers that are right")

    def get_fields(self) -> dict[str, Field]:
        return {"from": serializers.DateTimeField(), **super().get_fields()}


class GoldFiguresSerializer(Described):
    all = FigureSerializer(help_text="share of hidden gold answers that are right")
    over_time = GoldPartSerializer(many=True, help_text="equal parts of the answers, at most 12")


class AnnotatorFiguresSerializer(Described):
    annotator = serializers.CharField(help_text="pseudonym in this project")
    kind = serializers.CharField(help_text="human, simulated, model, imported")
    n = serializers.IntegerField(help_text="judgements")
    agreement_with_consensus = FigureSerializer(help_text="on pairs, with most of the others")
    agreement_with_adjudication = FigureSerializer(help_text="share of votes on settled pairs that say what was settled")
    reliability = FigureSerializer(help_text="share of votes that are right by Dawid and Skene's model")
    crowd_bt = FigureSerializer(help_text="how often they vote for the better one, by Crowd-BT")
    confusion = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField()), allow_null=True,
        help_text="expected votes by what is true (rows) and what was said (columns), each first, second, tie",
    )  # fmt: skip
    confusion_shares = ConfusionSerializer(
        allow_null=True, help_text="the same as shares with intervals; of the 200 with most judgements"
    )
    position_bias = PositionBiasSerializer()
    gold = GoldOfAnnotatorSerializer(allow_null=True, help_text="null: answered none")
    repeats = RepeatsSerializer(allow_null=True, help_text="null: shown none")
    seconds_median = serializers.FloatField(allow_null=True)


class QualitySerializer(Described):
    computed_at = serializers.DateTimeField(allow_null=True, help_text="null: a large project without a report yet")
    problem = serializers.CharField(allow_blank=True, help_text="what kept newer figures from being computed")
    n_judgements_since = serializers.IntegerField()
    n_tasks = serializers.IntegerField(help_text="judged")
    n_tasks_judged_twice = serializers.IntegerField(help_text="ranked by two or more")
    n_judgements = serializers.IntegerField()
    n_annotators = serializers.IntegerField()
    n_votes = serializers.IntegerField(help_text="on pairs of completions")
    judgements_a_task = serializers.FloatField(allow_null=True)
    annotator_kinds = serializers.DictField(child=serializers.IntegerField())
    agreement = serializers.DictField(child=FigureSerializer())
    agreement_of_people = serializers.DictField(child=FigureSerializer())
    agreement_by_tag = serializers.DictField(child=TwoFiguresSerializer())
    agreement_over_time = PartSerializer(many=True)
    agreement_by_time = PartByTimeSerializer(
        many=True, help_text="equal parts of the rankings by people, quickest first; at most 8"
    )
    position_bias = PositionBiasSerializer()
    seconds_median = serializers.FloatField(allow_null=True)
    confusion = ConfusionSerializer()
    confusion_of_people = ConfusionSerializer()
    disagreement = DisagreementFiguresSerializer()
    adjudication = AdjudicationFiguresSerializer()
    gold = GoldFiguresSerializer()
    repeats = RepeatsSerializer(help_text="of all annotators together")
    annotators = AnnotatorFiguresSerializer(many=True, help_text="those with most judgements first")
    consensus_method = serializers.CharField()


class ConsensusPairSerializer(Described):
    first = serializers.CharField(help_text="id of a completion")
    second = serializers.CharField()
    p_first = serializers.FloatField(help_text="probability that the first is better")
    p_second = serializers.FloatField()
    p_tie = serializers.FloatField()
    n = serializers.IntegerField(help_text="votes on the pair")


class ConsensusAdjudicationSerializer(Described):
    by = serializers.CharField(help_text="pseudonym in this project")
    at = serializers.DateTimeField()
    blind = serializers.BooleanField(help_text="the reviewer said a ranking before they saw the votes")


class ConsensusSerializer(Described):
    task = serializers.CharField()
    n_judgements = serializers.IntegerField()
    n_people = serializers.IntegerField(help_text="judgements by people")
    pairs = ConsensusPairSerializer(many=True)
    ranking = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()), allow_null=True,
        help_text="ids of completions, best first, ties in one inner list; null where a pair has no vote",
    )  # fmt: skip
    points = serializers.DictField(
        child=serializers.FloatField(), allow_null=True, help_text="expected wins over the others, a tie as half"
    )
    scores = serializers.DictField(
        child=serializers.FloatField(), allow_null=True, help_text="log strengths of mean 0, by Crowd-BT"
    )
    adjudication = ConsensusAdjudicationSerializer(
        allow_null=True, help_text="who settled the task: then the ranking is theirs, and certain"
    )
