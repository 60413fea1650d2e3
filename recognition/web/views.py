"""The member pages. Services act; a view reads what its user may see and shows it."""

from __future__ import annotations

import uuid

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import OuterRef, Subquery
from django.db.models.fields.files import FieldFile
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.templatetags.static import static
from django.views.decorators.http import require_http_methods, require_safe
from django_htmx.http import reswap, retarget

from recognition import delivery
from recognition.models import Catalogue, GalleryImage, Product, RecognitionQuery
from recognition.web import answers
from recognition.web.forms import RecogniseForm
from recognition.web.htmx import Request, render_part

SIDES = (160, 480, 1280)
PER_PAGE = 48


def catalogue_of(request: HttpRequest, key: uuid.UUID) -> Catalogue:
    """The gate of every page below a catalogue: an outsider learns nothing, not even that it is."""
    rows = Catalogue.objects.visible_to(request.user).select_related("index__feature_model")
    return get_object_or_404(rows, key=key)


def _query(request: HttpRequest, key: uuid.UUID) -> RecognitionQuery:
    rows = RecognitionQuery.objects.visible_to(request.user).select_related(
        "catalogue", "feature_model"
    )
    return get_object_or_404(rows, key=key)


@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """For who asks without looking into a page. Not for good: the name has the file's hash."""
    return redirect(static("recognition/icon.svg"))


@require_safe
@login_required
def home(request: Request) -> HttpResponse:
    """My catalogues, with what is in them."""
    catalogues = list(
        Catalogue.objects.visible_to(request.user)
        .select_related("index__feature_model", "owner")
        .with_counts()
    )
    return render(request, "recognition/home.html", {"catalogues": catalogues})


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def recognise(request: Request, key: uuid.UUID) -> HttpResponse:
    """Ask what is on a picture. With htmx the answer comes into the page, else it has its own."""
    catalogue = catalogue_of(request, key)
    posted = request.method == "POST"
    form = RecogniseForm(
        request.POST if posted else None,
        request.FILES if posted else None,
        user=request.user,
        catalogue=catalogue,
    )
    if posted and (query := form.submit(by=request.user)):
        if not request.htmx:
            return redirect("recognition", key=query.key)
        return render(request, "recognition/_recognition.html", {"answer": answers.read(query)})
    context = {
        "form": form,
        "catalogue": catalogue,
        "uses_starters": answers.is_starter(
            catalogue.detector, catalogue.require_index().feature_model.name
        ),
    }
    if posted and request.htmx:
        # The form itself stays as it is, so nothing that was chosen or typed is lost.
        response = render(request, "recognition/_errors.html", context, status=422)
        return reswap(retarget(response, "#errors"), "innerHTML")
    return render(request, "recognition/recognise.html", context, status=422 if posted else 200)


@require_safe
@login_required
def recognition(request: Request, key: uuid.UUID) -> HttpResponse:
    """One recognition, for good at this address. While it waits its fragment asks again."""
    answer = answers.read(_query(request, key))
    if request.htmx and answer.is_waiting:
        return HttpResponse(status=204)  # nothing new: htmx leaves the page as it is
    return render_part(request, "recognition", {"answer": answer})


@require_safe
@login_required
def gallery(request: Request, key: uuid.UUID) -> HttpResponse:
    """The products of a catalogue, each with a picture."""
    catalogue = catalogue_of(request, key)
    text = request.GET.get("q", "").strip()
    products = Product.objects.filter(catalogue=catalogue)
    if text:
        products = products.matching(text)
    page = Paginator(products, PER_PAGE).get_page(request.GET.get("page"))
    images_of = GalleryImage.objects.order_by().filter(product=OuterRef("pk"))
    # Of this page only: in the statement that pages, they would be counted for skipped rows too.
    shown = Product.objects.filter(pk__in=[product.pk for product in page.object_list])
    page.object_list = list(
        shown.annotate(
            cover=Subquery(images_of.order_by("pk").values("number")[:1])
        ).with_image_count()
    )
    context = {"catalogue": catalogue, "page": page, "q": text}
    return render(request, "recognition/gallery.html", context)


@require_safe
@login_required
def product(request: Request, key: uuid.UUID, product_id: int) -> HttpResponse:
    """The gallery images of one product."""
    catalogue = catalogue_of(request, key)
    found = get_object_or_404(Product, catalogue=catalogue, pk=product_id)
    page = Paginator(found.images.order_by("pk"), PER_PAGE).get_page(request.GET.get("page"))
    context = {"catalogue": catalogue, "product": found, "page": page}
    return render(request, "recognition/product.html", context)


@require_safe
def gallery_picture(
    request: HttpRequest, key: uuid.UUID, number: int, side: int | None = None
) -> HttpResponseBase:
    """A gallery image as it is stored, or a small JPEG of it."""
    image = get_object_or_404(
        GalleryImage.objects.visible_to(request.user), catalogue__key=key, number=number
    )
    return _picture(request, image.file, side)


@require_safe
def query_picture(
    request: HttpRequest, key: uuid.UUID, side: int | None = None
) -> HttpResponseBase:
    """The picture that was asked about, as it is stored, or a small JPEG of it."""
    return _picture(request, _query(request, key).file, side)


def _picture(request: HttpRequest, file: FieldFile, side: int | None) -> HttpResponseBase:
    if (side is not None and side not in SIDES) or not file:  # it came as a vector only
        raise Http404
    return delivery.picture(request, str(file.name), side)
