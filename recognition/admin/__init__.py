"""Staff screens, one file per concept as in `models/`. Staff act by Django's own permissions."""

from recognition.admin import (  # noqa: F401  (registers)
    catalogue,
    gallery,
    job,
    people,
    product,
    query,
    token,
    vectors,
    worker,
)
