"""Rows and pictures for tests, with good defaults."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import count

import numpy as np
from PIL import Image

_numbers = count(1)


def user(name: str = "", **fields):
    from recognition.models import User

    return User.objects.create_user(name or f"user{next(_numbers)}", password="pw", **fields)


def feature_model():
    """The row of the stub network."""
    from recognition.engine.stub import StubStore
    from recognition.models import FeatureModel

    stub = StubStore().get("stub_rec")
    return FeatureModel.objects.get_or_create(
        name=stub.name, digest=stub.digest, defaults={"dimension": stub.dimension}
    )[0]


def catalogue(owner=None, name: str = "", *, detector: str = "", **options):
    """A catalogue whose networks are the stub ones."""
    from recognition.services import catalogues

    model = feature_model()
    made = catalogues.create(
        name or f"catalogue {next(_numbers)}",
        owner=owner or user(),
        feature_model=model.name,
        detector="",
        **options,
    )
    if detector:
        made.detector = detector
        made.save(update_fields=["detector"])
    return made


def member(of, role: str, name: str = ""):
    """A new user with that role in the catalogue."""
    from recognition.models import Membership

    made = user(name)
    Membership.objects.create(user=made, catalogue=of, role=role)
    return made


def ended(row, state: str, *, error: str = "") -> None:
    """Write the end of a row's work, as a worker leaves it."""
    row.state, row.error, row.lease_until = state, error, None
    row.save(update_fields=["state", "error", "lease_until"])


@lru_cache(maxsize=256)
def png(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A colourful little picture, another one for each seed."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)):
    """The same, checked."""
    from recognition import images

    return images.check(png(seed, size))


def add(catalogue, label: str, seed: int = 0, **options):
    """Add one picture to the gallery; its embedding is queued, not done."""
    from recognition.services import gallery_adding

    return gallery_adding.add_image(
        catalogue, label, picture(seed), by=catalogue.owner, **options
    ).image
