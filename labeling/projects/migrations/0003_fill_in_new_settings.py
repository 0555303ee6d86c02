"""Projects made before get the new parts of the feedback form, switched off, and the default settings of the bench."""

from django.db import migrations

FORM = {"marks": [], "demonstration": "off", "required": []}
BENCH = {
    "system_prompts": "shown",
    "fold_turns": 6,
    "content_warning": "",
    "blur": False,
    "daily_cap": 0,
    "break_minutes": 50,
    "warns_when_fast": True,
    "shows_agreement": False,
}


def forwards(apps, schema_editor):
    for project in apps.get_model("projects", "Project").objects.all().iterator():
        project.form = {**FORM, **project.form}
        project.bench = {**BENCH, **project.bench}
        project.save(update_fields=["form", "bench"])


class Migration(migrations.Migration):
    dependencies = [("projects", "0002_bench_settings_and_authored_completions")]
    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
