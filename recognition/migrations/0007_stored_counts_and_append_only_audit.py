from django.db import migrations

COUNT = """
UPDATE recognition_catalogue c SET stored_images = s.images, stored_bytes = s.bytes
FROM (
    SELECT catalogue_id, count(*) AS images, sum(byte_size) AS bytes
    FROM recognition_galleryimage GROUP BY catalogue_id
) s WHERE s.catalogue_id = c.id
"""

# By statement, so that even one that would touch no row is refused. TRUNCATE is left to whoever
# owns the table: it is how the tests empty their database.
APPEND_ONLY = """
CREATE FUNCTION recognition_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON recognition_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION recognition_audit_is_append_only();
"""
REVERSE = """
DROP TRIGGER audit_is_append_only ON recognition_auditentry;
DROP FUNCTION recognition_audit_is_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("recognition", "0006_catalogue_management")]

    operations = [
        migrations.RunSQL(COUNT, migrations.RunSQL.noop),
        migrations.RunSQL(APPEND_ONLY, REVERSE),
    ]
