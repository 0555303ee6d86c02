"""The mathematics of agreement, reliability and consensus, each figure with its uncertainty. Pure: no Django."""

from labeling.quality.statistics.agreement import (
    Answers,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha_interval,
    krippendorff_alpha_nominal,
    krippendorff_alpha_ordinal,
    pairwise_agreement,
)
from labeling.quality.statistics.intervals import (
    Figure,
    clustered_proportion,
    median_seconds,
    undefined,
    wilson_interval,
)
from labeling.quality.statistics.rankings import kendall_tau, kendall_w, position_bias, ranks_as_answers
from labeling.quality.statistics.reliability import agreement_with_others, dawid_skene
from labeling.quality.statistics.votes import OTHER_WAY_ROUND, PairVotes, Ranking, Rankings, Votes, pair_votes, ranks_of

__all__ = [
    "OTHER_WAY_ROUND", "Answers", "Figure", "PairVotes", "Ranking", "Rankings", "Votes", "agreement_with_others",
    "clustered_proportion", "cohen_kappa", "dawid_skene", "fleiss_kappa", "kendall_tau", "kendall_w",
    "krippendorff_alpha_interval", "krippendorff_alpha_nominal", "krippendorff_alpha_ordinal", "median_seconds",
    "pair_votes", "pairwise_agreement", "position_bias", "ranks_as_answers", "ranks_of", "undefined", "wilson_interval",
]  # fmt: skip
