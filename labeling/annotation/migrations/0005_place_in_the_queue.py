"""Slots get their place in the queue from the priority and age of their task; gold becomes a purpose."""

from django.db import migrations
from django.db.models import F, OuterRef, Subquery

A_PRIORITY = 2**40


def forwards(apps, schema_editor):
    Slot, Task = apps.get_model("annotation", "Slot"), apps.get_model("annotation", "Task")
    Task.objects.filter(is_gold=True).update(purpose="gold")
    queued = Slot.objects.exclude(task__state="closed").exclude(task__kind="conversation").exclude(task__purpose="gold")
    queued.update(position=F("task_id") - F("priority") * A_PRIORITY)


def backwards(apps, schema_editor):
    Slot, Task = apps.get_model("annotation", "Slot"), apps.get_model("annotation", "Task")
    Task.objects.filter(purpose="gold").update(is_gold=True, purpose="preference")
    priority = Task.objects.filter(pk=OuterRef("task")).values("priority")
    Slot.objects.update(priority=Subquery(priority))


class Migration(migrations.Migration):
    dependencies = [("annotation", "0004_the_queue_and_who_may_be_given_what")]
    operations = [migrations.RunPython(forwards, backwards)]
