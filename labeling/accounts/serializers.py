from rest_framework import serializers

from labeling.web.api import StrictSerializer, Text


class CredentialsSerializer(StrictSerializer):
    username = Text(max_length=150)
    password = Text(max_length=1000, trim_whitespace=False)


class TokenSerializer(serializers.Serializer):
    token = serializers.CharField(help_text="shown this once; only its digest is kept")
