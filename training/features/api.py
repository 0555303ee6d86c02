"""Features over REST: what is encoded, by which layer, and what the reward head would learn most of."""

from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING, TRAINING
from labeling.projects.api_access import ApiView
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, query, wrong_fields
from training.features.errors import BadEncoder, NothingToEncode
from training.features.selectors import encoders_visible_to, state_of
from training.features.serializers import (
    EncoderPatchSerializer,
    EncoderSerializer,
    FeaturesSerializer,
    NewEncoderSerializer,
    UncertainPairsSerializer,
)
from training.features.services import create_encoder, delete_encoder, start_encoding, stop_encoder, use_encoder
from training.features.uncertain import head_in_use, uncertain_pairs
from training.runs.api import model_named
from training.runs.serializers import RunSerializer

MOST_PAIRS = 200


class FeaturesView(ApiView):
    @describe("get_features", tag="training", answers={200: FeaturesSerializer}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        """How many of the project's completions are encoded, and by what."""
        return Response(FeaturesSerializer(state_of(self.project(slug, READING))).data)


class EncodeView(ApiView):
    @describe("encode_completions", tag="training", answers={201: RunSerializer}, errors=[404, 409])
    def post(self, request: Request, slug: str) -> Response:
        """Encode now what waits. New completions are encoded by themselves, unless the last run was cancelled or failed. The run is
        cancelled as any other. 409 `nothing_to_encode`."""
        project = self.project(slug, TRAINING)
        try:
            run = start_encoding(project=project, created_by=request.user)
        except NothingToEncode as error:
            raise Refused("nothing_to_encode", str(error), status=409) from None
        return Response(RunSerializer(run).data, status=201)


class EncodersView(ApiView):
    @describe(
        "list_encoders", tag="training", answers={200: page_of(EncoderSerializer)}, errors=[404], parameters=PAGE_PARAMETERS
    )
    def get(self, request: Request, slug: str) -> Response:
        """Measured ones and those chosen by hand. A run of kind layers measures."""
        self.project(slug, READING)
        return self.page(encoders_visible_to(request.user).filter(project__slug=slug), EncoderSerializer)

    @describe("create_encoder", tag="training", body=NewEncoderSerializer, answers={201: EncoderSerializer}, errors=[404])
    def post(self, request: Request, slug: str) -> Response:
        """Enter a choice made by hand. It is not in use until it is said to be."""
        project = self.project(slug, TRAINING)
        wanted = self.parsed(NewEncoderSerializer)
        wanted["model"] = model_named(project, wanted["model"])
        try:
            encoder = create_encoder(project=project, created_by=request.user, **wanted)
        except BadEncoder as error:
            raise wrong_fields(error.fields) from None
        return Response(EncoderSerializer(encoder).data, status=201)


class EncoderView(ApiView):
    @describe("get_encoder", tag="training", answers={200: EncoderSerializer}, errors=[404])
    def get(self, request: Request, encoder_id: str) -> Response:
        return Response(EncoderSerializer(self.find(encoders_visible_to(request.user), encoder_id)).data)

    @describe(
        "change_encoder", tag="training", body=EncoderPatchSerializer, answers={200: EncoderSerializer}, errors=[404, 409]
    )
    def patch(self, request: Request, encoder_id: str) -> Response:
        """Use it in the place of another, or stop encoding by it."""
        encoder = self.find(encoders_visible_to(request.user), encoder_id, TRAINING)
        if self.parsed(EncoderPatchSerializer)["is_active"]:
            try:
                use_encoder(encoder=encoder, by=request.user)
            except BadEncoder as error:
                raise Refused("wrong_state", str(error), status=409) from None
        else:
            stop_encoder(encoder=encoder)
        return Response(EncoderSerializer(encoder).data)

    @describe("delete_encoder", tag="training", answers={204: None}, errors=[404, 409])
    def delete(self, request: Request, encoder_id: str) -> Response:
        """Delete one that is not in use, with all that it encoded."""
        encoder = self.find(encoders_visible_to(request.user), encoder_id, TRAINING)
        try:
            delete_encoder(encoder=encoder)
        except BadEncoder as error:
            raise Refused("wrong_state", str(error), status=409) from None
        return Response(status=204)


class UncertainPairsView(ApiView):
    @describe(
        "list_uncertain_pairs", tag="training", answers={200: UncertainPairsSerializer}, errors=[400, 404],
        parameters=[query("at_most", int, f"pairs, one a prompt; 20 if not given, at most {MOST_PAIRS}")],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """The comparisons of which the newest reward head would learn most: what to label next."""
        project = self.project(slug, TRAINING)
        asked = request.query_params.get("at_most", "20")
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:6]) <= MOST_PAIRS and len(asked) < 6):
            raise wrong_fields({"at_most": f"must be a whole number from 1 to {MOST_PAIRS}"})
        found = head_in_use(project)
        pairs = uncertain_pairs(project, int(asked)) if found else []
        return Response(UncertainPairsSerializer({"model": found[0].key if found else None, "pairs": pairs}).data)
