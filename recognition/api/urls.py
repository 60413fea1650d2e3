"""Every address of the native API. `tests/api/test_access.py` holds who may use which."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, URLResolver, path
from drf_spectacular.views import SpectacularSwaggerView

from recognition.api import (
    audit,
    catalogues,
    document,
    feedback,
    images,
    indexes,
    jobs,
    many_images,
    many_products,
    members,
    products,
    recognitions,
    request_id,  # noqa: F401  (sets X-Request-ID on every answer)
    similar,
    tokens,
    trash,
    workers,
)

_PUBLIC: dict[str, Any] = {"authentication_classes": [], "permission_classes": []}
_LIST: dict[str, Any] = {"get": "list"}
_READ: dict[str, Any] = {"get": "retrieve"}
_CREATE: dict[str, Any] = {"post": "create"}
_REMOVE: dict[str, Any] = {"delete": "destroy"}
_LIST_CREATE: dict[str, Any] = {"get": "list", "post": "create"}
_READ_CHANGE_REMOVE: dict[str, Any] = {
    "get": "retrieve",
    "patch": "partial_update",
    "delete": "destroy",
}

_CATALOGUE = "v1/catalogues/<uuid:key>"
_PRODUCT = f"{_CATALOGUE}/products/<int:product>"
_JOB = f"{_CATALOGUE}/jobs/<uuid:job>"
_RECOGNITION = "v1/recognitions/<uuid:key>"

app_name = "api"
urlpatterns: list[URLPattern | URLResolver] = [
    path("schema/", document.DocumentView.as_view(**_PUBLIC), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="api:schema", **_PUBLIC), name="docs"),
    path(
        "v1/catalogues",
        catalogues.CatalogueListView.as_view(_LIST_CREATE),
        name="catalogues",
    ),
    path(_CATALOGUE, catalogues.CatalogueView.as_view(_READ_CHANGE_REMOVE), name="catalogue"),
    path(f"{_CATALOGUE}/statistics", catalogues.StatisticsView.as_view(_READ), name="statistics"),
    path(f"{_CATALOGUE}/products", products.ProductListView.as_view(_LIST_CREATE), name="products"),
    path(
        f"{_CATALOGUE}/products/upsert",
        many_products.ProductsUpsertView.as_view(_CREATE),
        name="products-upsert",
    ),
    path(
        f"{_CATALOGUE}/products/change",
        many_products.ProductsChangeView.as_view(_CREATE),
        name="products-change",
    ),
    path(
        f"{_CATALOGUE}/products/remove",
        many_products.ProductsRemoveView.as_view(_CREATE),
        name="products-remove",
    ),
    path(
        f"{_CATALOGUE}/products/move",
        many_products.ProductsMoveView.as_view(_CREATE),
        name="products-move",
    ),
    path(
        f"{_PRODUCT}/merge", many_products.ProductMergeView.as_view(_CREATE), name="product-merge"
    ),
    path(
        f"{_PRODUCT}/split", many_products.ProductSplitView.as_view(_CREATE), name="product-split"
    ),
    path(f"{_CATALOGUE}/trash", trash.TrashListView.as_view(_LIST), name="trash"),
    path(
        f"{_CATALOGUE}/trash/<int:product>",
        trash.TrashView.as_view(_REMOVE),
        name="trashed",
    ),
    path(
        f"{_CATALOGUE}/trash/<int:product>/restore",
        trash.TrashView.as_view(_CREATE),
        name="trash-restore",
    ),
    path(
        _PRODUCT,
        products.ProductView.as_view(_READ_CHANGE_REMOVE),
        name="product",
    ),
    path(f"{_CATALOGUE}/images", images.ImageListView.as_view(_LIST_CREATE), name="images"),
    path(
        f"{_CATALOGUE}/images/remove",
        many_images.ImagesRemoveView.as_view(_CREATE),
        name="images-remove",
    ),
    path(
        f"{_CATALOGUE}/images/move",
        many_images.ImagesMoveView.as_view(_CREATE),
        name="images-move",
    ),
    path(
        f"{_CATALOGUE}/images/retry",
        many_images.ImagesRetryView.as_view(_CREATE),
        name="images-retry",
    ),
    path(
        f"{_CATALOGUE}/images/<int:number>",
        images.ImageView.as_view(_READ_CHANGE_REMOVE),
        name="image",
    ),
    path(
        f"{_CATALOGUE}/images/<int:number>/picture",
        images.ImagePictureView.as_view(_READ),
        name="image-picture",
    ),
    path(
        f"{_CATALOGUE}/images/<int:number>/thumbnail",
        images.ImageThumbnailView.as_view(_READ),
        name="image-thumbnail",
    ),
    path(
        f"{_CATALOGUE}/images/<int:number>/similar",
        similar.SimilarView.as_view(_READ),
        name="image-similar",
    ),
    path(
        f"{_CATALOGUE}/recognitions",
        recognitions.RecognitionListView.as_view(_LIST_CREATE),
        name="recognitions",
    ),
    path(_RECOGNITION, recognitions.RecognitionView.as_view(_READ | _REMOVE), name="recognition"),
    path(
        f"{_RECOGNITION}/picture",
        recognitions.RecognitionPictureView.as_view(_READ),
        name="recognition-picture",
    ),
    path(
        f"{_RECOGNITION}/annotated",
        recognitions.RecognitionAnnotatedView.as_view(_READ),
        name="recognition-annotated",
    ),
    path(
        f"{_RECOGNITION}/detections/<int:position>/feedback",
        feedback.FeedbackView.as_view({"put": "update"} | _REMOVE),
        name="recognition-feedback",
    ),
    path(f"{_CATALOGUE}/jobs", jobs.JobListView.as_view(_LIST), name="jobs"),
    path(f"{_CATALOGUE}/members", members.MemberListView.as_view(_LIST_CREATE), name="members"),
    path(
        f"{_CATALOGUE}/members/<int:member>",
        members.MemberView.as_view({"patch": "partial_update", "delete": "destroy"}),
        name="member",
    ),
    path(
        f"{_CATALOGUE}/invitations",
        members.InvitationListView.as_view(_LIST_CREATE),
        name="invitations",
    ),
    path(
        f"{_CATALOGUE}/invitations/<int:invitation>",
        members.InvitationView.as_view(_REMOVE),
        name="invitation",
    ),
    path(
        "v1/invitations/<slug:text>",
        members.InvitedView.as_view(_READ | _CREATE),
        name="invited",
    ),
    path("v1/tokens", tokens.TokenListView.as_view(_LIST_CREATE), name="tokens"),
    path("v1/tokens/<slug:token>", tokens.TokenView.as_view(_REMOVE), name="token"),
    path(f"{_CATALOGUE}/audit", audit.AuditListView.as_view(_LIST), name="audit"),
    path(f"{_CATALOGUE}/audit.csv", audit.AuditTableView.as_view(_READ), name="audit-table"),
    path(
        f"{_CATALOGUE}/index",
        indexes.IndexView.as_view({"get": "retrieve", "patch": "partial_update"}),
        name="index",
    ),
    path(
        f"{_CATALOGUE}/index/rebuild",
        indexes.IndexRebuildView.as_view(_CREATE),
        name="index-rebuild",
    ),
    path(
        f"{_CATALOGUE}/index/explain",
        indexes.IndexExplainView.as_view(_READ),
        name="index-explain",
    ),
    path("v1/workers", workers.WorkerListView.as_view(_LIST), name="workers"),
    path(f"{_CATALOGUE}/quotas", catalogues.QuotasView.as_view(_READ), name="quotas"),
    path(_JOB, jobs.JobView.as_view(_READ), name="job"),
    path(f"{_JOB}/lines", jobs.JobLineListView.as_view(_LIST), name="job-lines"),
    path(f"{_JOB}/report", jobs.JobReportView.as_view(_READ), name="job-report"),
    path(f"{_JOB}/file", jobs.JobFileView.as_view(_READ), name="job-file"),
    path(f"{_JOB}/cancel", jobs.JobCancelView.as_view(_CREATE), name="job-cancel"),
    path(f"{_JOB}/retry", jobs.JobRetryView.as_view(_CREATE), name="job-retry"),
    path(f"{_CATALOGUE}/imports", jobs.ImportView.as_view(_CREATE), name="imports"),
    path(f"{_CATALOGUE}/exports", jobs.ExportView.as_view(_CREATE), name="exports"),
]
