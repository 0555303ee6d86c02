"""What runs take of the disk, their checkpoints, and their files, over REST."""

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING, STEERING
from labeling.projects.api_access import ApiView
from labeling.web.api import Refused, describe
from training.runs import disk
from training.runs.errors import RunError
from training.runs.logs import EVENTS, LOG, file_of
from training.runs.selectors import runs_visible_to
from training.runs.serializers import RunSerializer

MOST_RUNS = 200


class RunRoomSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    kind = serializers.CharField()
    state = serializers.CharField()
    disk_bytes = serializers.IntegerField(help_text="of its folder, when it was last counted")
    checkpoint_bytes = serializers.IntegerField(help_text="of that, of its checkpoints")
    measured_at = serializers.DateTimeField(allow_null=True)
    checkpoints_go_at = serializers.SerializerMethodField(help_text="when they go by themselves; null: they are needed, kept or gone")

    def get_checkpoints_go_at(self, run: object) -> str | None:
        at = disk.goes_at(run)
        return at.isoformat() if at else None


class RoomSerializer(serializers.Serializer):
    used_bytes = serializers.IntegerField(source="used", help_text="of the folders of the project's runs")
    checkpoint_bytes = serializers.IntegerField(source="checkpoints")
    quota_bytes = serializers.IntegerField(source="quota", help_text="of each project; 0: none. When it is used up nothing more is queued")
    free_bytes = serializers.IntegerField(source="free", help_text="of the disk where runs lie")
    floor_bytes = serializers.IntegerField(source="floor", help_text="that stay free; below it no run is begun")
    runs = RunRoomSerializer(many=True, help_text=f"the largest first, at most {MOST_RUNS}")


class DiskView(ApiView):
    @describe("get_run_disk", tag="training", answers={200: RoomSerializer}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        """What the project's runs take of the disk, and how much they may."""
        project = self.project(slug, READING)
        usage = disk.usage_of(project)
        found = disk.runs_by_room(project)[:MOST_RUNS]
        values = {name: getattr(usage, name) for name in ("used", "checkpoints", "quota", "free", "floor")}
        return Response(RoomSerializer({**values, "runs": found}).data)


class CheckpointsView(ApiView):
    @describe("delete_run_checkpoints", tag="training", answers={200: RunSerializer}, errors=[404, 409])
    def delete(self, request: Request, run_id: str) -> Response:
        """Delete the checkpoints of a run that is over; for leads. Resumed, it then begins anew. What it made stays."""
        run = self.find(runs_visible_to(request.user), run_id, STEERING)
        try:
            disk.delete_checkpoints(run=run, reason=f"by {request.user.username}")
        except RunError as error:
            raise Refused("wrong_state", str(error), status=409) from None
        return Response(RunSerializer(runs_visible_to(request.user).get(pk=run.pk)).data)


class RunLogView(ApiView):
    @describe("get_run_log", tag="training", answers={(200, "text/plain"): OpenApiTypes.STR}, errors=[404])
    def get(self, request: Request, run_id: str) -> HttpResponse:
        """What the run's processes wrote, over all of its attempts; of a very long log the end. Empty before it begins."""
        return file_of(self.find(runs_visible_to(request.user), run_id), LOG)


class RunEventsFileView(ApiView):
    @describe("get_run_events_file", tag="training", answers={(200, "application/x-ndjson"): OpenApiTypes.STR}, errors=[404])
    def get(self, request: Request, run_id: str) -> HttpResponse:
        """The run's events as one file, a JSON object a line, as its processes wrote them; of a very long one the end."""
        return file_of(self.find(runs_visible_to(request.user), run_id), EVENTS)
