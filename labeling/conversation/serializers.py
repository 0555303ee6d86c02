from typing import Any

from rest_framework import serializers

from labeling.annotation.serializers import MessageSerializer
from labeling.conversation.errors import sentence_for
from labeling.conversation.models import Conversation, ConversationSettings, Turn
from labeling.conversation.selectors import model_servers, shown_opening, standing_turns
from labeling.conversation.services import MAX_CONTENT, MAX_TURNS
from labeling.web.api import Flag, Number, StrictSerializer, Text, Whole


class SpeakerSerializer(StrictSerializer):
    server = Text(max_length=40, help_text="one of `servers`: the operator names them")
    model = Text(max_length=200, help_text="the server's name for it")
    model_key = Text(max_length=120, required=False, help_text="what completions carry; default: the model's name")
    temperature = Number(min_value=0, max_value=2, default=0.8)
    top_p = Number(min_value=0, max_value=1, default=0.95)
    max_tokens = Whole(min_value=1, max_value=4096, default=256)


class NewSettingsSerializer(StrictSerializer):
    is_on = Flag(required=False)
    speakers = SpeakerSerializer(many=True, required=False, help_text="2 to 12; each turn draws two of them")
    system = Text(max_length=MAX_CONTENT, allow_blank=True, required=False)
    max_turns = Whole(min_value=1, max_value=MAX_TURNS, required=False)
    note = Text(max_length=MAX_CONTENT, allow_blank=True, required=False)
    opening = serializers.ChoiceField(ConversationSettings.Opening.values, required=False)


class SettingsSerializer(serializers.Serializer):
    is_on = serializers.BooleanField()
    speakers = SpeakerSerializer(many=True)
    system = serializers.CharField()
    max_turns = serializers.IntegerField()
    note = serializers.CharField()
    opening = serializers.ChoiceField(ConversationSettings.Opening.values)
    servers = serializers.SerializerMethodField(help_text="names of the servers that speakers may be of")

    def get_servers(self, found: ConversationSettings) -> list[str]:
        return list(model_servers())


class TurnSerializer(serializers.Serializer):
    """A turn as its annotator may see it. Nothing here says who speaks."""

    number = serializers.IntegerField()
    content = serializers.CharField(help_text="what the annotator said")
    state = serializers.ChoiceField(Turn.State.values)
    problem = serializers.CharField(help_text="why it failed, for programs; empty if it didn't")
    message = serializers.CharField(help_text="the same for people")
    completions = serializers.DictField(
        child=serializers.CharField(), help_text="key to text, once both are there; as much as was written before"
    )
    lease = serializers.CharField(allow_null=True, help_text="judge it: POST /leases/{id}/judgement/")
    continued_with = serializers.CharField(allow_null=True, help_text="key of the completion that went on")
    none_good = serializers.BooleanField(help_text="both were called bad: they can be sampled again")

    def to_representation(self, turn: Turn) -> dict[str, Any]:
        shown = turn.lease.order_shown if turn.lease else []
        continued = "ab"[shown.index(turn.continued_with_id)] if turn.continued_with_id in shown else None
        failed = turn.state == Turn.State.FAILED
        return super().to_representation(
            {
                "number": turn.number,
                "content": turn.content,
                "state": turn.state,
                "problem": turn.problem if failed else "",
                "message": sentence_for(turn.problem) if failed else "",
                "completions": dict(zip("ab", turn.texts, strict=False)),
                "lease": str(turn.lease_id) if turn.lease_id and not failed else None,
                "continued_with": continued,
                "none_good": turn.state == Turn.State.JUDGED and turn.problem == "none_good",
            }
        )


class ConversationSerializer(serializers.Serializer):
    id = serializers.CharField()
    project = serializers.CharField()
    state = serializers.ChoiceField(Conversation.State.values)
    ending = serializers.CharField()
    max_turns = serializers.IntegerField()
    opening = MessageSerializer(many=True, help_text="messages before the first turn")
    suggestion = serializers.CharField(help_text="the first message that the project proposes; may be empty")
    turns = TurnSerializer(many=True, help_text="one a number, the last attempt")
    created_at = serializers.DateTimeField()

    def to_representation(self, conversation: Conversation) -> dict[str, Any]:
        return super().to_representation(
            {
                "id": conversation.public_id,
                "project": conversation.project.slug,
                "state": conversation.state,
                "ending": conversation.ending,
                "max_turns": conversation.max_turns,
                "opening": shown_opening(conversation),
                "suggestion": conversation.suggestion,
                "turns": standing_turns(conversation),
                "created_at": conversation.created_at,
            }
        )


class EndSerializer(StrictSerializer):
    reason = Text(max_length=300, allow_blank=True, default="")


class MessageBodySerializer(StrictSerializer):
    content = Text(max_length=MAX_CONTENT, trim_whitespace=False)

    def validate_content(self, content: str) -> str:
        if not content.strip():
            raise serializers.ValidationError("This field may not be blank.")
        return content
