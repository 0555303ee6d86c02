from rest_framework import serializers

from labeling.images.models import Image


class ImageSerializer(serializers.Serializer):
    id = serializers.CharField(source="public_id")
    name = serializers.CharField(help_text="the file's name as it was uploaded")
    reference = serializers.CharField(help_text="such as image:3f2a…-640x480: an address for ![words](…)")
    markdown = serializers.CharField(help_text="ready to be put into a prompt")
    content_type = serializers.ChoiceField(Image.ContentType.choices)
    width = serializers.IntegerField(help_text="pixels")
    height = serializers.IntegerField(help_text="pixels")
    n_bytes = serializers.IntegerField(help_text="as stored, after it was drawn anew")
    sha256 = serializers.CharField(help_text="of the file as it was uploaded")
    created_at = serializers.DateTimeField()
