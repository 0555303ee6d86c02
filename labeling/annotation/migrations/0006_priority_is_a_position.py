from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("annotation", "0005_place_in_the_queue")]
    operations = [
        migrations.RemoveIndex(model_name="slot", name="slot_queue"),
        migrations.RemoveField(model_name="slot", name="priority"),
        migrations.RemoveField(model_name="task", name="is_gold"),
    ]
