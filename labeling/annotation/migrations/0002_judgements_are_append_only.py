"""The database itself refuses to change a judgement: a revision is a new row."""

from django.db import migrations

POSTGRESQL = """
CREATE FUNCTION annotation_refuse_judgement_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'judgements are append-only: add a revision instead';
END $$;
CREATE TRIGGER annotation_judgement_append_only BEFORE UPDATE ON annotation_judgement
FOR EACH ROW EXECUTE FUNCTION annotation_refuse_judgement_update();
"""
POSTGRESQL_BACK = """
DROP TRIGGER annotation_judgement_append_only ON annotation_judgement;
DROP FUNCTION annotation_refuse_judgement_update();
"""
SQLITE = """
CREATE TRIGGER annotation_judgement_append_only BEFORE UPDATE ON annotation_judgement
BEGIN
    SELECT RAISE(ABORT, 'judgements are append-only: add a revision instead');
END;
"""


def forwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL)
    else:
        schema_editor.execute(SQLITE)


def backwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL_BACK)
    else:
        schema_editor.execute("DROP TRIGGER annotation_judgement_append_only;")


class Migration(migrations.Migration):
    dependencies = [("annotation", "0001_initial")]
    operations = [migrations.RunPython(forwards, backwards)]
