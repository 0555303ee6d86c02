from django.db import migrations, models


def keep_the_newest_in_production(apps, schema_editor):
    """Of several in production the newest is the one that pages and iterations took; the others become candidates."""
    ModelVersion = apps.get_model("registry", "ModelVersion")
    StageChange = apps.get_model("registry", "StageChange")
    seen = set()
    for model in ModelVersion.objects.filter(stage="production", project__isnull=False).order_by("-pk"):
        if (model.project_id, model.kind) in seen:
            ModelVersion.objects.filter(pk=model.pk).update(stage="candidate")
            reason = "Another of its kind was in production too, and newer"
            StageChange.objects.create(model=model, from_stage="production", to_stage="candidate", reason=reason)
        seen.add((model.project_id, model.kind))


class Migration(migrations.Migration):
    dependencies = [
        ("preferences", "0002_withdrawals_and_freezes"),
        ("projects", "0009_consent_to_training"),
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="modelversion",
            name="acceptance_due",
            field=models.BooleanField(default=False, help_text="its maker asks that somebody accepts the terms first"),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="fee_due",
            field=models.BooleanField(default=False, help_text="using it costs a fee, or does so in some cases"),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="licence_url",
            field=models.CharField(blank=True, help_text="where the licence or the terms can be read", max_length=300),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="output_restrictions",
            field=models.TextField(blank=True, help_text="what its terms say of the completions it writes"),
        ),
        migrations.RunPython(keep_the_newest_in_production, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.UniqueConstraint(
                condition=models.Q(("project__isnull", False), ("stage", "production")),
                fields=("project", "kind"),
                name="one_in_production_a_project_and_kind",
            ),
        ),
    ]
