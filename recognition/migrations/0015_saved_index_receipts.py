from django.db import migrations
from django.utils import timezone


def write(apps, schema_editor):
    """A saved index that was imported whole had its catalogue's description written at the end;
    now a job says it, so that it is not imported once more over what was changed since."""
    Catalogue, Job = (apps.get_model("recognition", name) for name in ("Catalogue", "Job"))
    whole = Catalogue.objects.filter(name__regex=r"^index [0-9a-f]{32}$").exclude(description="")
    for catalogue in whole:
        Job.objects.create(
            catalogue=catalogue,
            kind="import",
            started_by_id=catalogue.owner_id,
            source_name="index",
            options={"index": catalogue.name.removeprefix("index ")},
            state="done",
            total=catalogue.stored_images,
            done=catalogue.stored_images,
            finished_at=timezone.now(),
        )


def forget(apps, schema_editor):
    apps.get_model("recognition", "Job").objects.filter(
        kind="import", options__has_key="index"
    ).delete()


class Migration(migrations.Migration):
    dependencies = [("recognition", "0014_job_language")]

    operations = [migrations.RunPython(write, forget)]
