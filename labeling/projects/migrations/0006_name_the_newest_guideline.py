"""Each project gets a pointer to the newest version of its guideline."""

from django.db import migrations
from django.db.models import OuterRef, Subquery


def forwards(apps, schema_editor):
    Guideline, Project = apps.get_model("projects", "Guideline"), apps.get_model("projects", "Project")
    newest = Guideline.objects.filter(project=OuterRef("pk")).order_by("-version").values("pk")[:1]
    Project.objects.update(guideline=Subquery(newest))


class Migration(migrations.Migration):
    dependencies = [("projects", "0005_the_queue_and_who_may_be_given_what")]
    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
