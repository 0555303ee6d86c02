"""The database itself refuses to change what a reviewer settled; only a note to the guideline can be ticked off."""

from django.db import migrations

FIXED = (
    "project_id, task_id, by_id, submission_key, outcome, ranking, none_acceptable, rationale, blind, votes_seen_at, "
    "becomes_gold, note_to_guideline, supersedes_id, created_at"
)
POSTGRESQL = f"""
CREATE FUNCTION quality_refuse_adjudication_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'adjudications are append-only: add a newer one instead';
END $$;
CREATE TRIGGER quality_adjudication_append_only BEFORE UPDATE OF {FIXED} ON quality_adjudication
FOR EACH ROW EXECUTE FUNCTION quality_refuse_adjudication_update();
"""
POSTGRESQL_BACK = """
DROP TRIGGER quality_adjudication_append_only ON quality_adjudication;
DROP FUNCTION quality_refuse_adjudication_update();
"""
SQLITE = f"""
CREATE TRIGGER quality_adjudication_append_only BEFORE UPDATE OF {FIXED} ON quality_adjudication
BEGIN
    SELECT RAISE(ABORT, 'adjudications are append-only: add a newer one instead');
END;
"""


def forwards(apps, schema_editor):
    schema_editor.execute(POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE)


def backwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL_BACK)
    else:
        schema_editor.execute("DROP TRIGGER quality_adjudication_append_only;")


class Migration(migrations.Migration):
    dependencies = [("quality", "0002_disagreements_and_adjudications")]
    operations = [migrations.RunPython(forwards, backwards)]
