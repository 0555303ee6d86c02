from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0006_name_the_newest_guideline")]
    operations = [
        migrations.AlterField(
            model_name="prompt",
            name="group_id",
            field=models.CharField(
                help_text="near-duplicates and turns of one conversation share it: see grouping.py", max_length=16
            ),
        ),
        migrations.CreateModel(
            name="PromptSignature",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("value", models.BinaryField(help_text="MinHash of the opening: 64 slots of 32 bits, little-endian")),
                ("is_grouped", models.BooleanField(default=False, help_text="compared with all others of the project")),
                (
                    "project",
                    models.ForeignKey(
                        db_index=False, on_delete=models.deletion.CASCADE, related_name="+", to="projects.project"
                    ),
                ),
                (
                    "prompt",
                    models.OneToOneField(
                        on_delete=models.deletion.CASCADE, related_name="signature", to="projects.prompt"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["project", "prompt"], name="signature_of_project"),
                    models.Index(
                        condition=models.Q(("is_grouped", False)), fields=["project"], name="signature_not_grouped"
                    ),
                ],
            },
        ),
    ]
