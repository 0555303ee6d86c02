"""Nobody is asked to read a version of the guideline that they judged under already.

Whoever has judged nothing yet begins with the newest one when they first come to the bench.
"""

from django.db import migrations
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce


def forwards(apps, schema_editor):
    Judgement, Membership = apps.get_model("annotation", "Judgement"), apps.get_model("projects", "Membership")
    judged = Judgement.objects.filter(project=OuterRef("project"), annotator=OuterRef("user"), guideline__isnull=False)
    version = judged.order_by("-pk").values("guideline__version")[:1]
    Membership.objects.filter(guideline_read=0).update(guideline_read=Coalesce(Subquery(version), F("guideline_read")))


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0006_priority_is_a_position"),
        ("projects", "0006_name_the_newest_guideline"),
    ]
    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
