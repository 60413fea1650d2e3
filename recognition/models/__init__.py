"""What is true. One file per concept; import from here."""

from recognition.models.catalogue import Catalogue, CropPolicy, Membership, Role
from recognition.models.gallery import BoxSource, GalleryImage
from recognition.models.job import Job, JobLine, LineResult
from recognition.models.people import User
from recognition.models.product import Product
from recognition.models.query import Detection, Match, RecognitionQuery, Status
from recognition.models.token import ApiToken
from recognition.models.vectors import (
    Embedding,
    FeatureModel,
    IndexState,
    IndexType,
    Metric,
    RecallSample,
    VectorIndex,
    View,
)
from recognition.models.work import State, Work
from recognition.models.worker import Worker

__all__ = [
    "ApiToken",
    "BoxSource",
    "Catalogue",
    "CropPolicy",
    "Detection",
    "Embedding",
    "FeatureModel",
    "GalleryImage",
    "IndexState",
    "IndexType",
    "Job",
    "JobLine",
    "LineResult",
    "Match",
    "Membership",
    "Metric",
    "Product",
    "RecallSample",
    "RecognitionQuery",
    "Role",
    "State",
    "Status",
    "User",
    "VectorIndex",
    "View",
    "Work",
    "Worker",
]
