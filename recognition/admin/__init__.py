"""Staff screens, one file per concept as in `models/`. Staff act by Django's own permissions."""

from recognition.admin import (  # noqa: F401  (registers)
    audit,
    catalogue,
    gallery,
    job,
    membership,
    people,
    product,
    query,
    quota,
    token,
    vectors,
    worker,
)
