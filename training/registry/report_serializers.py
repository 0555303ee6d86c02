"""How the report of a reward model looks over REST. It is answered as its run left it, so these only describe it."""

from rest_framework import serializers

from labeling.quality.serializers import Described, FigureSerializer


class ClusteredFigureSerializer(FigureSerializer):
    n_groups = serializers.IntegerField(required=False, help_text="prompt groups among them, which the interval goes by")


class ReportSliceRowSerializer(Described):
    name = serializers.CharField()
    is_other = serializers.BooleanField(help_text="the smallest ones gathered")
    accuracy = ClusteredFigureSerializer()


class ReportSliceSerializer(Described):
    by = serializers.CharField(help_text="strength, tag, iteration, annotator (pseudonyms) or annotator_kind")
    unit = serializers.CharField(help_text="pairs; of annotators votes, each against what that person said")
    rows = ReportSliceRowSerializer(many=True)
    n_gathered = serializers.IntegerField(help_text="that are one row, other")
    n_unknown = serializers.IntegerField(help_text="pairs that say nothing of it")
    missing = serializers.CharField(help_text="why there is no row; else empty")


class ReliabilityBinSerializer(Described):
    low = serializers.FloatField(help_text="probability of the completion with the higher reward, at least")
    high = serializers.FloatField()
    predicted = serializers.FloatField(help_text="mean of it")
    right = ClusteredFigureSerializer()


class TemperatureSerializer(ClusteredFigureSerializer):
    folds = serializers.IntegerField(required=False, help_text="of the cross-fit behind log_loss_scaled")


class CalibrationSerializer(Described):
    n = serializers.IntegerField(help_text="pairs with a winner")
    bins = ReliabilityBinSerializer(many=True, help_text="the reliability curve: pairs by how sure the model is, in bins of equal size")
    ece = ClusteredFigureSerializer(help_text="expected calibration error")
    ece_by_chance = ClusteredFigureSerializer(help_text="of a calibrated model on as many pairs: mean, and 95 % quantile as high")
    brier = ClusteredFigureSerializer()
    log_loss = ClusteredFigureSerializer(help_text="in nats; 0.693 knows nothing")
    temperature = TemperatureSerializer(help_text="divides the margins; above 1 the model is too sure")
    log_loss_scaled = ClusteredFigureSerializer(allow_null=True, help_text="each pair's temperature fitted on other groups")
    log_loss_change = ClusteredFigureSerializer(allow_null=True, help_text="scaled less not; below 0 scaling helps")


class LengthBinSerializer(Described):
    low = serializers.FloatField(help_text="how many times as long the longer completion is, at least")
    high = serializers.FloatField()
    people = ClusteredFigureSerializer(help_text="how often the longer one won")
    model = ClusteredFigureSerializer(help_text="how often it has the higher reward")


class LengthBiasSerializer(Described):
    unit = serializers.CharField(help_text="of length")
    n_equal = serializers.IntegerField()
    shorter_won = ClusteredFigureSerializer(help_text="accuracy where the shorter completion won")
    longer_won = ClusteredFigureSerializer()
    difference = ClusteredFigureSerializer(help_text="longer less shorter")
    within_prompt = ClusteredFigureSerializer(help_text="correlation of differences of reward and of log length within pairs")
    overall = ClusteredFigureSerializer(allow_null=True, help_text="correlation over completions; null: cross-validated")
    people = ClusteredFigureSerializer(help_text="how often the longer one won")
    model = ClusteredFigureSerializer(help_text="how often it has the higher reward")
    by_ratio = LengthBinSerializer(many=True)


class PlaceSerializer(Described):
    first_won = ClusteredFigureSerializer(help_text="accuracy where the completion shown first won")
    second_won = ClusteredFigureSerializer()
    difference = ClusteredFigureSerializer(help_text="first less second")
    people = ClusteredFigureSerializer(help_text="how often the one shown first won")
    n_unknown = serializers.IntegerField()
    n_balanced = serializers.IntegerField(help_text="shown as often one way as the other")
    missing = serializers.CharField()


class MajorityCaseSerializer(Described):
    id = serializers.CharField(allow_null=True, help_text="of the pair in the snapshot")
    task = serializers.CharField(allow_null=True, help_text="its id")
    probability = serializers.FloatField(help_text="the model's for what people prefer")
    n_votes = serializers.IntegerField(help_text="of people")
    share = serializers.FloatField(help_text="of them who agree")


class MajoritySerializer(Described):
    least_votes = serializers.IntegerField()
    clear = serializers.FloatField(help_text="share of votes from which a majority is clear")
    against = ClusteredFigureSerializer(help_text="share of comparisons with a clear majority in which the model prefers the other one")
    n_few = serializers.IntegerField(help_text="comparisons with too few votes of people")
    n_unclear = serializers.IntegerField()
    n_settled = serializers.IntegerField(help_text="by reviewers, left out")
    n_cases = serializers.IntegerField()
    cases = MajorityCaseSerializer(many=True, help_text="at most 50, the surest first")
    missing = serializers.CharField()


class RewardReportSerializer(Described):
    of = serializers.CharField(help_text="which pairs it is on")
    is_cross_validated = serializers.BooleanField(help_text="none were held out: training pairs, by fits that had not seen their group")
    n_pairs = serializers.IntegerField()
    n_groups = serializers.IntegerField()
    n_ties = serializers.IntegerField(help_text="which have no right order and are left out")
    n_dropped = serializers.IntegerField(help_text="pairs that were too long for the model")
    accuracy = ClusteredFigureSerializer()
    slices = ReportSliceSerializer(many=True)
    calibration = CalibrationSerializer()
    length = LengthBiasSerializer()
    position = PlaceSerializer()
    majority = MajoritySerializer()
