"""Vectors: which network made them, which space they live in, and the rows themselves."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from pgvector.django import HalfVectorField

from recognition.models.catalogue import Catalogue


class FeatureModel(models.Model):
    """A network that makes embeddings, down to its weights.

    Two rows may share a name when the weights changed; `digest` tells them apart, so vectors of
    different weights never meet in one search.
    """

    name = models.CharField(_("name"), max_length=100)
    digest = models.CharField(_("weights hash"), max_length=64)
    dimension = models.PositiveIntegerField(
        _("dimension"), validators=[MinValueValidator(1), MaxValueValidator(4000)]
    )
    preprocessing = models.JSONField(_("preprocessing"), default=dict)
    installed = models.BooleanField(
        _("installed"), default=True, help_text=_("its weights are in the models directory")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        ordering = ["name", "-created_at"]
        verbose_name = _("feature model")
        verbose_name_plural = _("feature models")
        constraints = [
            models.UniqueConstraint(fields=["name", "digest"], name="feature_model_identity")
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.digest[:8]}, {self.dimension})"


class Metric(models.TextChoices):
    """How a score is expressed. Vectors have unit length, so all three rank alike.

    IP and cosine: 1 is identical, higher is better. L2: squared distance as in PaddleX (FAISS),
    0 is identical, lower is better; `L2 = 2 - 2 * cosine`.
    """

    IP = "IP", _("inner product")
    L2 = "L2", _("squared Euclidean distance")
    COSINE = "cosine", _("cosine similarity")

    @property
    def default_threshold(self) -> float:
        return 1.0 if self is Metric.L2 else 0.5

    @property
    def higher_is_better(self) -> bool:
        return self is not Metric.L2


class IndexType(models.TextChoices):
    """PaddleX's words."""

    HNSW32 = "HNSW32", _("HNSW graph")
    IVF = "IVF", _("inverted lists")
    FLAT = "Flat", _("always exact")


class IndexState(models.TextChoices):
    EXACT = "exact", _("exact")
    BUILDING = "building", _("building")
    INDEXED = "indexed", _("indexed")


class VectorIndex(models.Model):
    """One search space: one catalogue x one feature model. Its id is every vector's `space_id`."""

    catalogue = models.ForeignKey(
        Catalogue, on_delete=models.CASCADE, related_name="spaces", verbose_name=_("catalogue")
    )
    feature_model = models.ForeignKey(
        FeatureModel,
        on_delete=models.PROTECT,
        related_name="spaces",
        verbose_name=_("feature model"),
    )
    metric = models.CharField(_("metric"), max_length=6, choices=Metric, default=Metric.IP)
    index_type = models.CharField(
        _("index type"), max_length=6, choices=IndexType, default=IndexType.HNSW32
    )
    m = models.PositiveSmallIntegerField(
        _("links (m)"),
        default=16,
        validators=[MinValueValidator(2), MaxValueValidator(100)],
        help_text=_("HNSW: links per vector and layer"),
    )
    ef_construction = models.PositiveSmallIntegerField(
        _("build effort (ef_construction)"),
        default=200,
        validators=[MinValueValidator(4), MaxValueValidator(1000)],
        help_text=_("HNSW: candidates looked at while building"),
    )
    lists = models.PositiveIntegerField(
        _("lists"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(32768)],
        help_text=_("IVF: number of lists; empty: chosen from the number of vectors"),
    )
    ef_search = models.PositiveSmallIntegerField(
        _("search effort (ef_search)"),
        default=64,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text=_("HNSW: candidates looked at while searching; raised when recall falls"),
    )
    stands_out = models.FloatField(
        _("stands out from"),
        null=True,
        editable=False,
        help_text=_("HNSW: difference in similarity from which a first look is enough; measured"),
    )
    probes = models.PositiveIntegerField(
        _("lists searched (probes)"),
        default=16,
        validators=[MinValueValidator(1), MaxValueValidator(32768)],
        help_text=_("IVF: lists looked at while searching; raised when recall falls"),
    )
    recall_target = models.FloatField(
        _("recall target"), default=0.99, validators=[MinValueValidator(0.5), MaxValueValidator(1)]
    )

    state = models.CharField(
        _("state"), max_length=8, choices=IndexState, default=IndexState.EXACT, editable=False
    )
    index_name = models.CharField(
        _("name of the index"),
        max_length=63,
        blank=True,
        default="",
        editable=False,
        help_text=_("in PostgreSQL"),
    )
    built_with = models.JSONField(
        _("built with"),
        default=dict,
        editable=False,
        help_text=_("type, parameters, vectors, bytes and seconds of the index in use"),
    )
    build_error = models.TextField(_("build error"), blank=True, default="", editable=False)
    vectors = models.PositiveIntegerField(
        _("vectors"),
        default=0,
        editable=False,
        help_text=_("counted when the index was last looked after"),
    )
    images = models.PositiveIntegerField(
        _("images"),
        default=0,
        editable=False,
        help_text=_("with at least one vector, counted likewise"),
    )
    products = models.PositiveIntegerField(
        _("products"),
        default=0,
        editable=False,
        help_text=_("with at least one vector, counted likewise"),
    )
    tended_at = models.DateTimeField(_("looked after"), null=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("vector index")
        verbose_name_plural = _("vector indexes")
        constraints = [
            models.UniqueConstraint(
                fields=["catalogue", "feature_model"], name="one_space_per_catalogue_and_model"
            )
        ]

    def __str__(self) -> str:
        return f"{self.catalogue} · {self.feature_model}"


class RecallSample(models.Model):
    """Questions answered both ways, exactly and through the index, at one moment.

    `effort` is `ef_search` (HNSW) or `probes` (IVF) while sampling; `raised_to` is what it was
    changed to because `recall` lay under the space's target, and `recall_after` what it then was.
    Times are medians in milliseconds.
    """

    space = models.ForeignKey(
        VectorIndex,
        on_delete=models.CASCADE,
        related_name="samples",
        verbose_name=_("search space"),
    )
    measured_at = models.DateTimeField(_("measured"), auto_now_add=True)
    k = models.PositiveSmallIntegerField(_("results (k)"))
    questions = models.PositiveSmallIntegerField(_("questions"))
    recall = models.FloatField(_("recall"))
    indexed_ms = models.FloatField(_("ms by index"))
    exact_ms = models.FloatField(_("ms exactly"))
    vectors = models.PositiveIntegerField(_("vectors"))
    effort = models.PositiveIntegerField(_("effort"))
    raised_to = models.PositiveIntegerField(_("raised to"), null=True)
    recall_after = models.FloatField(_("recall after"), null=True)

    class Meta:
        ordering = ["-measured_at"]
        verbose_name = _("recall sample")
        verbose_name_plural = _("recall samples")
        indexes = [models.Index(fields=["space", "-measured_at"], name="recall_by_space")]

    def __str__(self) -> str:
        return f"recall@{self.k} {self.recall:.3f}"


class View(models.IntegerChoices):
    """Which part of the gallery image a vector describes."""

    WHOLE = 0, _("whole picture")
    MAIN_BODY = 1, _("main body")


class Embedding(models.Model):
    """One vector: gallery image x space x view. Written and searched only by `recognition.search`.

    The table is hash-partitioned by `space_id` and made by migration; see `docs/search.md`.
    """

    pk = models.CompositePrimaryKey("space_id", "image_id", "view")
    space = models.ForeignKey(
        VectorIndex,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        verbose_name=_("search space"),
    )
    image = models.ForeignKey(
        "recognition.GalleryImage",
        on_delete=models.CASCADE,
        related_name="embeddings",
        verbose_name=_("gallery image"),
    )
    view = models.SmallIntegerField(_("view"), choices=View, default=View.WHOLE)
    emb = HalfVectorField(_("vector"))

    class Meta:
        db_table = "recognition_embedding"
        verbose_name = _("embedding")
        verbose_name_plural = _("embeddings")

    def __str__(self) -> str:
        return f"image {self.image_id}, {self.get_view_display()}, space {self.space_id}"
