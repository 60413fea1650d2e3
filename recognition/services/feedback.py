"""What operators say about answers: one word for each region, and the last one counts.

It is stored and shown, nothing else: no answer, no threshold and no vector changes by it.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from recognition.errors import BadInput, Conflict, NotFound
from recognition.models import (
    Action,
    Detection,
    Feedback,
    Product,
    RecognitionQuery,
    State,
    User,
    Verdict,
)
from recognition.services import audit


@transaction.atomic
def give(
    query: RecognitionQuery,
    position: int,
    verdict: Verdict,
    *,
    product: int | None = None,
    by: User,
) -> Feedback:
    """Say what the region at `position` (0 for the first) of an answer shows; returns what is kept.

    `product`, the id of a product of the catalogues that were asked, goes with `corrected` and with
    nothing else. Naming the product that was proposed first is confirming it; the id of a merged
    product leads to the one it was merged into. Saying the same again changes nothing.

    The caller sees to it that the user may see the answer and give feedback. Raises BadInput for a
    product that is not in those catalogues, NotFound for a region that is not there, Conflict
    before there is an answer, and when what is confirmed was never proposed, or is removed.
    """
    if (product is None) == (verdict == Verdict.CORRECTED):
        raise BadInput(
            _("name the right product together with “corrected”, and with nothing else"),
            field="product",
        )
    locked = _locked(query)
    if locked.state != State.DONE:
        raise Conflict(
            _("there is nothing to give feedback on yet: this recognition is %(state)s")
            % {"state": locked.get_state_display()}
        )
    region = _region(locked, position)
    if verdict == Verdict.CONFIRMED:
        shown = _proposed(locked, region)
    elif product is not None:
        shown = _named(locked, product)
        if shown.pk == _proposed_id(region):
            verdict = Verdict.CONFIRMED
    else:
        shown = None
    before = Feedback.objects.filter(detection=region).first()
    shown_id = shown.pk if shown else None
    if before is not None and (before.verdict, before.product_id) == (verdict, shown_id):
        return before
    kept, _created = Feedback.objects.update_or_create(
        detection=region,
        defaults={
            "verdict": verdict,
            "product": shown,
            "label": shown.label if shown else "",
            "given_by": by,
            "given_at": timezone.now(),
        },
    )
    audit.record(
        Action.FEEDBACK_GIVE,
        locked,
        catalogue=locked.catalogue,
        by=by,
        changes=audit.differences(_said(before), _said(kept)),
        detection=position,
    )
    return kept


@transaction.atomic
def withdraw(query: RecognitionQuery, position: int, *, by: User) -> None:
    """Take back what was said about a region; nothing happens when nothing was.

    Raises NotFound for a region that is not there.
    """
    locked = _locked(query)
    before = Feedback.objects.filter(detection=_region(locked, position)).first()
    if before is None:
        return
    before.delete()
    audit.record(
        Action.FEEDBACK_WITHDRAW,
        locked,
        catalogue=locked.catalogue,
        by=by,
        changes=audit.differences(_said(before), _said(None)),
        detection=position,
    )


def _locked(query: RecognitionQuery) -> RecognitionQuery:
    """The question until the commit: nobody removes it or says something else meanwhile."""
    rows = RecognitionQuery.objects.select_related("catalogue").filter(pk=query.pk)
    found = rows.select_for_update(of=("self",), no_key=True).first()
    if found is None:
        raise NotFound(_("the recognition was removed a moment ago"))
    return found


def _region(query: RecognitionQuery, position: int) -> Detection:
    found = query.detections.filter(position=position).first()
    if found is None:
        raise NotFound(
            _("this answer has no region %(position)s; it has %(count)s, counted from 0")
            % {"position": position, "count": query.detections.count()}
        )
    return found


def _proposed_id(region: Detection) -> int | None:
    """Of the product that was proposed first, or the one it was merged into."""
    best = region.matches.select_related("product").first()
    return None if best is None or best.product is None else best.product.now_id


def _proposed(query: RecognitionQuery, region: Detection) -> Product:
    if (best := region.matches.first()) is None:
        raise Conflict(
            _(
                "nothing was proposed for this region, so there is nothing to confirm; name the "
                "right product, or say that it is unknown"
            ),
            field="verdict",
        )
    found = _living(query, _proposed_id(region))
    if found is None:
        raise Conflict(
            _(
                "“%(label)s”, which was proposed, was removed since; name another product, or say "
                "that it is unknown"
            )
            % {"label": best.label},
            field="verdict",
        )
    return found


def _named(query: RecognitionQuery, product_id: int) -> Product:
    row = Product.everything.filter(pk=product_id, catalogue__in=_asked(query)).first()
    found = _living(query, row.now_id) if row else None
    if found is None:  # in the same words for what is elsewhere and what is nowhere
        raise BadInput(
            _("there is no product %(id)s in the catalogues that were asked") % {"id": product_id},
            field="product",
        )
    return found


def _living(query: RecognitionQuery, product_id: int | None) -> Product | None:
    """Locked, so that nobody removes or moves it before the commit."""
    rows = Product.objects.filter(pk=product_id, catalogue__in=_asked(query))
    return rows.select_for_update(no_key=True).first()


def _asked(query: RecognitionQuery) -> list[int]:
    return [query.catalogue_id, *query.also.values_list("pk", flat=True)]


def _said(feedback: Feedback | None) -> dict[str, Any]:
    if feedback is None:
        return {"verdict": None, "product": None, "label": None}
    return {
        "verdict": str(feedback.verdict),
        "product": feedback.product_id,
        "label": feedback.label or None,
    }
