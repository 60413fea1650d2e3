import django.db.models.deletion
from django.db import migrations, models
from pgvector.django import HalfVectorField, VectorExtension

# Why each line is as it is: docs/search.md, "The table".
TABLE = """
CREATE TABLE recognition_embedding (
    space_id bigint NOT NULL REFERENCES recognition_vectorindex ON DELETE CASCADE,
    image_id bigint NOT NULL REFERENCES recognition_galleryimage ON DELETE CASCADE,
    view smallint NOT NULL,
    emb halfvec NOT NULL,
    PRIMARY KEY (space_id, image_id, view)
) PARTITION BY HASH (space_id);
-- Before the partitions are made: they inherit it.
ALTER TABLE recognition_embedding ALTER COLUMN emb SET STORAGE PLAIN;
CREATE INDEX recognition_embedding_image ON recognition_embedding (image_id);
DO $$ BEGIN
    FOR remainder IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE recognition_embedding_p%s PARTITION OF recognition_embedding'
            ' FOR VALUES WITH (MODULUS 16, REMAINDER %s)', lpad(remainder::text, 2, '0'), remainder
        );
    END LOOP;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("recognition", "0001_initial")]

    operations = [
        VectorExtension(),
        migrations.RunSQL(
            TABLE,
            "DROP TABLE recognition_embedding",
            state_operations=[
                migrations.CreateModel(
                    name="Embedding",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "space_id",
                                "image_id",
                                "view",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "view",
                            models.SmallIntegerField(
                                choices=[(0, "whole picture"), (1, "main body")], default=0
                            ),
                        ),
                        ("emb", HalfVectorField()),
                        (
                            "image",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.CASCADE,
                                related_name="embeddings",
                                to="recognition.galleryimage",
                            ),
                        ),
                        (
                            "space",
                            models.ForeignKey(
                                db_constraint=False,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                to="recognition.vectorindex",
                            ),
                        ),
                    ],
                    options={
                        "verbose_name": "embedding",
                        "verbose_name_plural": "embeddings",
                        "db_table": "recognition_embedding",
                    },
                ),
            ],
        ),
        # Nearly always empty, so "nothing inactive here" costs one look at an empty index.
        migrations.RunSQL(
            "CREATE INDEX product_inactive ON recognition_product (catalogue_id)"
            " WHERE NOT is_active",
            "DROP INDEX product_inactive",
        ),
    ]
