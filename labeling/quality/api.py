"""How good the judgements are, for those who read the console."""

from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING
from labeling.projects.api_access import ApiView
from labeling.quality.selectors import consensus_of_tasks, tasks_with_rankings
from labeling.quality.serializers import ConsensusSerializer, QualitySerializer
from labeling.quality.services import quality_figures
from labeling.web.api import PAGE_PARAMETERS, CursorPages, describe, page_of, query


class QualityView(ApiView):
    @describe("get_quality", tag="annotation", answers={200: QualitySerializer}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        """Agreement, and each annotator's reliability and position bias; every figure with n and a 95 % interval.

        A figure is `{value, low, high, n, method}`; one that is not defined has the value null and says why in
        `method`. Up to 2,000 judgements the figures are those of this moment. Above, they come from a report that is
        computed as judgements come in: `computed_at` says when, `n_judgements_since` how many it lacks.

        `agreement` holds `pairwise_raw`, `krippendorff_alpha_nominal`, `krippendorff_alpha_symmetric` (blind to which
        completion of a pair was entered first), `krippendorff_alpha_ordinal` (of ranks), `fleiss_kappa`, `kendall_tau`,
        `kendall_w`, `krippendorff_alpha_interval:AXIS` and `krippendorff_alpha_ordinal:AXIS` of each rating axis,
        `krippendorff_alpha_nominal:acceptable`, and `cohen_kappa:A|B` and `cohen_kappa_symmetric:A|B`
        of the (at most 50) pairs of annotators with most in common. `agreement_of_people` is without simulated annotators and models; `agreement_by_tag` has the 50 most
        frequent tags, `agreement_over_time` equal parts of the tasks in the order in which they were judged.

        What a reviewer settled is a known truth for `reliability`, `crowd_bt` and the confusions. It changes no figure of
        agreement between annotators. `agreement_with_consensus` is with most of the others, the person's own vote
        left out.
        """
        return Response(QualitySerializer(quality_figures(self.project(slug, READING))).data)


class ConsensusView(ApiView):
    @describe(
        "list_consensus", tag="annotation", answers={200: page_of(ConsensusSerializer)}, errors=[400, 404],
        parameters=[*PAGE_PARAMETERS, query("task", description="id of a task")],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """What annotators hold together of each ranked task, newest first: pair by pair, and as one ranking.

        The probabilities are Dawid and Skene's, by the model of the project's newest report (see `quality`). Of a task that
        a reviewer settled the ranking is theirs, each probability 0 or 1, and `adjudication` says who and when.
        """
        project = self.project(slug, READING)
        tasks = tasks_with_rankings(project)
        if task := request.query_params.get("task"):
            tasks = tasks.filter(public_id=task)
        paginator = CursorPages()
        found = paginator.paginate_queryset(tasks, request, self)
        rows = consensus_of_tasks(project, found)
        return paginator.get_paginated_response(ConsensusSerializer(rows, many=True).data)
