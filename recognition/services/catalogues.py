"""Catalogues: made, found, changed, removed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Count, Q, QuerySet, Sum
from django.utils.translation import gettext as _
from psycopg.errors import DeadlockDetected, ForeignKeyViolation

from recognition import search
from recognition.errors import BadInput, Conflict, NotFound, RoleTooLow
from recognition.models import (
    Action,
    Catalogue,
    Embedding,
    GalleryImage,
    IndexType,
    Job,
    Membership,
    Metric,
    Product,
    RecognitionQuery,
    Role,
    State,
    User,
    VectorIndex,
)
from recognition.models.prepared import prepared
from recognition.services import (
    audit,
    feature_models,
    files,
    gallery_embedding,
    indexes,
    pipeline_config,
)

SETTINGS = frozenset(
    {
        "name",
        "description",
        "detector",
        "crop_policy",
        "det_threshold",
        "rec_threshold",
        "margin",
        "top_k",
        "max_detections",
        "shown_label",
    }
)
"""Fields of Catalogue that its managers may change; `metric` and `index_type` are its index's."""

_REMOVALS = 5


def require(user: User | AnonymousUser, key: uuid.UUID, role: Role) -> Catalogue:
    """The catalogue with that key, in which `user`, signed in as they are, has `role` or higher.

    Raises NotFound for an outsider, who learns nothing, and RoleTooLow naming the role for others.
    """
    found = (
        _seen(key, user.pk, user.limited_to, is_limited=user.limited_to is not None)
        if user.is_authenticated
        else []
    )
    if not found:
        raise NotFound(_("there is no catalogue %(key)s among those you may see") % {"key": key})
    [catalogue] = found
    if role != Role.VIEWER:
        require_role(user, catalogue, role)
    return catalogue


@prepared
def _seen(
    key: uuid.UUID, user: int, limited_to: str | None, *, is_limited: bool
) -> QuerySet[Catalogue]:
    """As `visible_to` says; every token has at least the role of a viewer."""
    rows = Catalogue.objects.select_related("index__feature_model", "owner").filter(key=key)
    return rows.granted(Role.VIEWER, user, limited_to if is_limited else None)


def require_role(user: User | AnonymousUser, catalogue: Catalogue, role: Role) -> None:
    """Raises NotFound for an outsider, RoleTooLow naming the role for a member who lacks it."""
    rows = Catalogue.objects.filter(pk=catalogue.pk)
    if rows.with_role(user, role).exists():
        return
    if not rows.visible_to(user).exists():
        raise NotFound(
            _("there is no catalogue %(key)s among those you may see") % {"key": catalogue.key}
        )
    raise RoleTooLow(
        _(
            "this needs the role %(role)s in the catalogue “%(catalogue)s”, and a token that "
            "allows it; ask one of its managers"
        )
        % {"role": role.label, "catalogue": catalogue.name}
    )


def require_unlimited(user: User) -> None:
    """Raises RoleTooLow when `user` is signed in with a token that may do less than they.

    What reaches beyond single catalogues asks for this: making one, whose maker manages it, joining
    one, making tokens.
    """
    token = user.token
    if token is not None and (token.role != Role.MANAGER or token.is_limited):
        raise RoleTooLow(
            _("this needs a token with the role manager that is not limited to some catalogues")
        )


def create(
    name: str,
    *,
    owner: User,
    feature_model: str | None = None,
    detector: str | None = None,
    metric: str = Metric.IP,
    index_type: str = IndexType.HNSW32,
    **options: Any,
) -> Catalogue:
    """Make an empty catalogue with its search space; `owner` becomes its first manager.

    `options` are fields of Catalogue (crop_policy, det_threshold, rec_threshold, top_k ...).
    Raises BadInput naming the field, Conflict when the owner has one of that name already,
    ModelUnavailable when a model is not installed, RoleTooLow for a token that does not allow it.
    """
    require_unlimited(owner)
    given = {"feature_model": feature_model, "detector": detector, **options}
    options = pipeline_config.site_options()  # SHITU_PIPELINE_CONFIG, for what is left open
    options |= {name: value for name, value in given.items() if value is not None}
    model = feature_models.installed(options.pop("feature_model", settings.SHITU_FEATURE_MODEL))
    detector = options.pop("detector", settings.SHITU_DETECTOR)
    feature_models.require_detector(detector)
    _check_choice("metric", metric, Metric.values)
    _check_choice("index_type", index_type, IndexType.values)
    catalogue = Catalogue(name=name.strip(), owner=owner, detector=detector, **options)
    check(catalogue)
    try:
        with transaction.atomic():
            catalogue.save()
            catalogue.index = VectorIndex.objects.create(
                catalogue=catalogue, feature_model=model, metric=metric, index_type=index_type
            )
            catalogue.save(update_fields=["index"])
            Membership.objects.create(user=owner, catalogue=catalogue, role=Role.MANAGER)
            audit.record(
                Action.CATALOGUE_CREATE,
                catalogue,
                catalogue=catalogue,
                by=owner,
                feature_model=model.name,
                metric=metric,
                index_type=index_type,
            )
    except IntegrityError as error:
        raise Conflict(
            _("%(owner)s already has a catalogue named “%(name)s”; choose another name")
            % {"owner": owner, "name": catalogue.name},
            field="name",
        ) from error
    return catalogue


def change(catalogue: Catalogue, **options: Any) -> Catalogue:
    """Change settings of a catalogue; the very next answer follows them.

    `metric` changes how scores are expressed (vectors have unit length, so no vector moves); the
    recognition threshold is translated with it unless another is given.
    `index_type` what the index is built as when it is next looked after, and another crop policy
    has every image embedded anew. Raises BadInput naming the field, Conflict for a name the owner
    already uses, and when somebody works on what would be embedded anew.
    """
    for_index: dict[str, Any] = {
        name: options.pop(name) for name in ("metric", "index_type") if name in options
    }
    if "metric" in for_index:
        _check_choice("metric", for_index["metric"], Metric.values)
    if "index_type" in for_index:
        _check_choice("index_type", for_index["index_type"], IndexType.values)
    if unknown := sorted(set(options) - SETTINGS):
        raise BadInput(
            _("a catalogue has no setting %(name)s") % {"name": unknown[0]}, field=unknown[0]
        )
    with transaction.atomic():
        anew = _recropped(catalogue, options)
        if anew:
            # Before the catalogue is locked, as workers do it.
            gallery_embedding.reembed(catalogue)
        now = Catalogue.objects.select_for_update(no_key=True).get(pk=catalogue.pk)
        # Read behind the lock: another may answer by now, or in another metric.
        index = catalogue.index = now.require_index()
        before = {name: getattr(now, name) for name in options}
        changes = audit.differences(before, options) | audit.differences(
            {name: getattr(index, name) for name in for_index}, for_index
        )
        for field, value in options.items():
            setattr(catalogue, field, value)
        if "detector" in options:
            feature_models.require_detector(catalogue.detector)
        check(catalogue)
        if anew != ("crop_policy" in changes):
            raise Conflict(
                _("somebody else changed the crop policy at this moment; try again"),
                field="crop_policy",
            )
        if anew and not gallery_embedding.reembed_rest(catalogue):
            raise Conflict(
                _("somebody else changes pictures of the catalogue at this moment; try again"),
                field="crop_policy",
            )
        if not changes:
            return catalogue
        if "index_type" in for_index:
            indexes.set_type(index, IndexType(for_index["index_type"]))
        if "metric" in for_index:
            indexes.set_metric(index, Metric(for_index["metric"]))
            if "rec_threshold" not in options:
                catalogue.refresh_from_db(fields=["rec_threshold"])
        try:
            with transaction.atomic():
                catalogue.save(update_fields=[*options, "changed_at"])
        except IntegrityError as error:
            raise Conflict(
                _("the owner already has a catalogue named “%(name)s”") % {"name": catalogue.name},
                field="name",
            ) from error
        if "metric" in for_index:  # which moved the version
            catalogue.refresh_from_db(fields=["version"])
        else:
            catalogue.touch()
        audit.record(Action.CATALOGUE_CHANGE, catalogue, catalogue=catalogue, changes=changes)
    return catalogue


def _recropped(catalogue: Catalogue, options: Mapping[str, Any]) -> bool:
    """Whether options hold another crop policy than the catalogue has at this moment."""
    if "crop_policy" not in options:
        return False
    return not Catalogue.objects.filter(
        pk=catalogue.pk, crop_policy=options["crop_policy"]
    ).exists()


def check(catalogue: Catalogue) -> None:
    """Validate all fields; raises BadInput for the first one that is wrong."""
    try:
        catalogue.clean_fields(exclude=["owner", "index"])
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise BadInput(f"{field}: {' '.join(messages)}", field=field) from error


def find(text: str, *, user: User | None = None, own: bool = False) -> Catalogue:
    """The catalogue with that key or name, among those `user` may see (all of them for None), or
    with `own` among those they own.

    Raises NotFound, or Conflict naming the keys when several owners use the name.
    """
    rows = _called(text, user)
    found = list((rows.filter(owner=user) if own else rows)[:6])
    if not found:
        raise _nowhere(text)
    if len(found) > 1:
        keys = ", ".join(
            _("%(key)s (of %(owner)s)") % {"key": row.key, "owner": row.owner} for row in found
        )
        raise Conflict(
            _("several catalogues are named “%(name)s”: %(keys)s") % {"name": text, "keys": keys},
            field="catalogue",
        )
    return found[0]


def meant(text: str, *, user: User) -> Catalogue:
    """As `find`, for a setting: of several of that name the one `user` owns, else the oldest.

    So nobody gets between by making another of that name and letting `user` in. Raises NotFound.
    """
    rows = _called(text, user).order_by("pk")
    found = rows.filter(owner=user).first() or rows.first()
    if found is None:
        raise _nowhere(text)
    return found


def _nowhere(text: str) -> NotFound:
    return NotFound(_("there is no catalogue “%(name)s”") % {"name": text}, field="catalogue")


def _called(text: str, user: User | None) -> QuerySet[Catalogue]:
    rows = Catalogue.objects.select_related("index__feature_model")
    if user is not None:
        rows = rows.visible_to(user)
    try:
        return rows.filter(key=uuid.UUID(text))
    except ValueError:
        return rows.filter(name=text)


def statistics(catalogue: Catalogue) -> dict[str, Any]:
    """What is in a catalogue, counted now: products, images by state, vectors, bytes, index."""
    index = catalogue.require_index()
    counted = catalogue.images.aggregate(
        byte_size=Sum("byte_size", default=0),
        **{state.value: Count("pk", filter=Q(state=state)) for state in State},
    )
    return {
        "products": catalogue.products.count(),
        "images": {state.value: counted[state.value] for state in State},
        "vectors": Embedding.objects.filter(space=index).count(),
        "bytes": counted["byte_size"],
        "index": {
            "state": index.state,
            "type": index.index_type,
            "metric": index.metric,
            "built_with": index.built_with,
            "build_error": index.build_error,
        },
        "version": catalogue.version,
    }


def remove(catalogue: Catalogue) -> None:
    """Remove a catalogue with everything in it; its files follow after the commit.

    When somebody adds to it in that moment, it begins again. Raises Conflict when that does not
    end.
    """
    for _attempt in range(_REMOVALS):
        try:
            if _remove(catalogue):
                return
        except (IntegrityError, OperationalError) as error:
            if not isinstance(error.__cause__, (ForeignKeyViolation, DeadlockDetected)):
                raise
    raise Conflict(_("somebody goes on working in this catalogue; stop that, then remove it"))


@transaction.atomic
def _remove(catalogue: Catalogue) -> bool:
    """False when something came meanwhile, and nothing was done.

    What works in a catalogue holds its own row, products and images before it waits for the
    catalogue. So they are locked in that order, and the catalogue last; and what came between is
    not waited for with the catalogue in hand.
    """
    beside = RecognitionQuery.also.through.objects.filter(catalogue=catalogue)
    inside: list[QuerySet[Any]] = [
        # Answers that were searched here too show its products.
        RecognitionQuery.objects.filter(
            Q(catalogue=catalogue) | Q(pk__in=beside.values("recognitionquery"))
        ),
        Job.objects.filter(catalogue=catalogue),
        Product.everything.filter(catalogue=catalogue),
        GalleryImage.everything.filter(catalogue=catalogue),
    ]
    locked = [len(_locked(rows, no_key=True)) for rows in inside]
    if not _locked(Catalogue.objects.filter(pk=catalogue.pk)):  # somebody else was faster
        return True
    if locked != [rows.count() for rows in inside]:
        return False
    queries, jobs, _, images = inside
    for rows in (queries, jobs, images):
        files.remove_on_commit(rows.values_list("file", flat=True))
    queries.delete()
    for space in catalogue.spaces.all():
        search.remove_space(space)
    audit.record(Action.CATALOGUE_REMOVE, catalogue, catalogue=catalogue, images=locked[-1])
    Catalogue.objects.filter(pk=catalogue.pk).delete()
    return True


def _locked(rows: QuerySet[Any], *, no_key: bool = False) -> list[int]:
    """Ids of rows that nobody else changes until the commit."""
    return list(rows.order_by("pk").select_for_update(no_key=no_key).values_list("pk", flat=True))


def _check_choice(field: str, value: str, allowed: list[str]) -> None:
    if value not in allowed:
        raise BadInput(
            _("%(field)s “%(value)s” is not one of %(allowed)s")
            % {"field": field, "value": value, "allowed": ", ".join(allowed)},
            field=field,
        )
