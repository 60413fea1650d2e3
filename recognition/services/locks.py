"""What is locked, in one order everywhere, so that nobody deadlocks.

First the job that is worked on, then the external ids of a catalogue's images, then the names of
its products, then what is merged there, then rows: products, images, catalogues, users, each by
primary key. A worker locks images and then the catalogue. A lock holds until the commit.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from django.db.models import Q
from django.utils.translation import gettext as _

from recognition.errors import NotFound
from recognition.models import Catalogue, Product

# Classes of advisory locks.
_IMAGE_IDS, _PRODUCT_NAMES, _ACCOUNT, _IMPORT, _MERGES = range(0x5EED, 0x5EF2)


def lock_products(catalogue: Catalogue, products: Iterable[Product]) -> list[Product]:
    """Lock living products of a catalogue until the commit, and read them again; in the order of
    their primary keys. Raises NotFound when one is gone or not of this catalogue."""
    ids = {product.pk for product in products}
    rows = list(
        Product.objects.filter(catalogue=catalogue, pk__in=ids)
        .order_by("pk")
        .select_for_update(no_key=True)
    )
    if len(rows) != len(ids):
        missing = min(ids - {row.pk for row in rows})
        raise NotFound(
            _("this catalogue has no product %(id)s") % {"id": missing}, field="products"
        )
    return rows


def lock_leaving(catalogue: Catalogue, products: Iterable[Product]) -> list[Product]:
    """`lock_products` for those that go to another catalogue, with what was merged into them.

    Stronger: an answer that found one of them waits (FOR KEY SHARE), and then sees where it is.
    """
    lock_merges(catalogue)
    ids = {product.pk for product in products}
    leaving = Product.everything.filter(
        Q(pk__in=ids) | Q(merged_into__in=ids), catalogue=catalogue
    ).order_by("pk")
    list(leaving.select_for_update().values_list("pk", flat=True))
    return lock_products(catalogue, products)


def lock_merges(catalogue: Catalogue) -> None:
    """Whoever merges products of a catalogue does so alone, and while nothing that was merged goes
    elsewhere: else what was merged into a product would be known only behind the lock of that
    product, and could not be locked in order."""
    _advise(_MERGES, catalogue)


def lock_image_ids(catalogue: Catalogue) -> None:
    """Two calls that both find no image with an external id would otherwise both write it."""
    _advise(_IMAGE_IDS, catalogue)


def lock_product_names(catalogue: Catalogue, *, shared: bool = False) -> None:
    """Whoever gives products of a catalogue other labels or external ids does so alone, and before
    any product is locked: else one could hold a product and wait for a label that somebody is
    just making, who waits for that product. Those who make products of new labels, each in the
    order of the labels, may do so together: `shared`."""
    _advise(_PRODUCT_NAMES, catalogue, shared=shared)


def lock_account(key: str) -> None:
    """Two windows of one person wait in line; `key` is what they are known by, in any case."""
    _advise_by_text(_ACCOUNT, key.lower())


def lock_import(key: str) -> None:
    """Of two calls that import the same saved index, the second finds it there."""
    _advise_by_text(_IMPORT, key)


def _advise(what: int, catalogue: Catalogue, *, shared: bool = False) -> None:
    lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {lock}(%s, %s)", [what, catalogue.pk % 2**31])


def _advise_by_text(what: int, key: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [what, key])
