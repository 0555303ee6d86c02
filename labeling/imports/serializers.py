from typing import Any

from rest_framework import serializers

from labeling.imports.preview import Preview
from labeling.projects.models import Import

STATES = [state for state in Import.State.values if state != Import.State.DRAFT]


class RejectedRowSerializer(serializers.Serializer):
    line = serializers.IntegerField()
    reason = serializers.CharField()


class ImportResultSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    taken = serializers.IntegerField(source="n_taken", help_text="rows that added something")
    duplicates = serializers.IntegerField(source="n_duplicates", help_text="rows whose all was there before")
    near_duplicates = serializers.IntegerField(
        source="n_near_duplicates", help_text="prompts that joined the group of one much like them"
    )
    rejected = serializers.IntegerField(source="n_rejected")
    format = serializers.CharField(help_text="as named, or as recognised")
    prompts = serializers.IntegerField(source="n_prompts", help_text="new ones")
    completions = serializers.IntegerField(source="n_completions", help_text="new ones")
    judgements = serializers.IntegerField(source="n_judgements", help_text="new ones")
    rejected_rows = RejectedRowSerializer(source="rejected", many=True, help_text="the first 1000")


class ListedImportSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    format = serializers.CharField()
    filename = serializers.CharField()
    sha256 = serializers.CharField(help_text="of the file as it came")
    mapping = serializers.DictField(child=serializers.CharField(), help_text="column of the format to column of the file")
    options = serializers.DictField(child=serializers.CharField())
    source = serializers.CharField(help_text="of rows that name none")
    licence = serializers.CharField(help_text="of rows that name none")
    tags = serializers.ListField(child=serializers.CharField(), help_text="added to those of each row")
    state = serializers.ChoiceField(STATES)
    problem = serializers.CharField(help_text="why it failed, and what to do")
    n_rows = serializers.IntegerField(help_text="rows of the file that are dealt with")
    n_taken = serializers.IntegerField(help_text="rows that added something")
    n_duplicates = serializers.IntegerField(help_text="rows whose all was there before")
    n_near_duplicates = serializers.IntegerField(help_text="prompts that joined the group of one much like them")
    n_rejected = serializers.IntegerField(help_text="rows, or parts of rows, that were refused")
    n_prompts = serializers.IntegerField(help_text="new ones")
    n_completions = serializers.IntegerField(help_text="new ones")
    n_judgements = serializers.IntegerField(help_text="new ones")
    bytes_done = serializers.IntegerField()
    bytes_total = serializers.IntegerField()
    seconds = serializers.FloatField(help_text="spent on it")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class ImportSerializer(ListedImportSerializer):
    rejected = RejectedRowSerializer(many=True, help_text="the first 1000; all are in rejected.jsonl")


class PreviewMessageSerializer(serializers.Serializer):
    role = serializers.CharField()
    content = serializers.CharField()


class PreviewTextSerializer(serializers.Serializer):
    key = serializers.CharField(help_text="by which votes name it")
    content = serializers.CharField()
    model = serializers.CharField(allow_blank=True)


class PreviewVoteSerializer(serializers.Serializer):
    annotator = serializers.CharField(allow_blank=True, help_text="as the file names them; empty: nobody")
    annotator_kind = serializers.CharField(help_text="human, simulated or model")
    judgement = serializers.DictField()
    at = serializers.DateTimeField(allow_null=True)


class PreviewRecordSerializer(serializers.Serializer):
    line = serializers.IntegerField()
    id = serializers.CharField(allow_blank=True)
    prompt = PreviewMessageSerializer(many=True)
    completions = PreviewTextSerializer(many=True)
    votes = PreviewVoteSerializer(many=True)
    source = serializers.CharField(allow_blank=True)
    licence = serializers.CharField(allow_blank=True)
    tags = serializers.ListField(child=serializers.CharField())
    group = serializers.CharField(allow_blank=True, help_text="what stays in one split beyond this prompt")


class ImportPreviewSerializer(serializers.Serializer):
    kind = serializers.CharField(help_text="jsonl, json, csv, parquet, arrow")
    compressed = serializers.BooleanField()
    n_bytes = serializers.IntegerField()
    format = serializers.CharField(allow_blank=True, help_text="named or recognised; empty: neither")
    certainty = serializers.CharField(help_text="of what is recognised")
    reasons = serializers.ListField(child=serializers.CharField(), help_text="why this format")
    also = serializers.ListField(child=serializers.CharField(), help_text="formats that it might be as well")
    columns = serializers.ListField(child=serializers.CharField())
    mapping = serializers.DictField(child=serializers.CharField(), help_text="as given, else proposed")
    options = serializers.DictField(child=serializers.CharField(), help_text="as given, else as the rows suggest")
    records = PreviewRecordSerializer(many=True, help_text="the first, as they would be taken")
    problems = RejectedRowSerializer(many=True, help_text="the first")
    n_rows = serializers.IntegerField(help_text="rows looked at")
    n_records = serializers.IntegerField(help_text="records in them")
    n_rejected = serializers.IntegerField(help_text="rows or parts refused in them")
    problem = serializers.CharField(allow_blank=True, help_text="why the file can't be read further")

    def to_representation(self, preview: Preview) -> dict[str, Any]:
        plain = ("kind", "compressed", "n_bytes", "format", "certainty", "reasons", "also", "columns", "mapping", "options", "n_rows")
        shown: dict[str, Any] = {name: getattr(preview, name) for name in (*plain, "n_records", "n_rejected", "problem")}
        shown["problems"] = [{"line": row.line, "reason": row.reason} for row in preview.problems]
        shown["records"] = [
            {
                "line": record.line,
                "id": record.external_id,
                "prompt": record.prompt,
                "completions": [
                    {"key": key, "content": text.content, "model": text.model}
                    for key, text in zip(keys_for(len(record.completions)), record.completions, strict=True)
                ],
                "votes": [
                    {"annotator": vote.annotator, "annotator_kind": vote.kind, "judgement": vote.judgement, "at": vote.at}
                    for vote in record.votes
                ],
                "source": record.source,
                "licence": record.licence,
                "tags": record.tags,
                "group": record.group,
            }
            for record in preview.records
        ]
        return shown


def keys_for(n: int) -> list[str]:
    """a, b, ...; past z numbers, which no vote names."""
    return [chr(97 + number) if number < 26 else str(number + 1) for number in range(n)]
