"""What is true. One file per concept; import from here."""

from recognition.models.audit import Action, AuditEntry, Source
from recognition.models.catalogue import Catalogue, CropPolicy, Membership, Role, ShownLabel
from recognition.models.feedback import Feedback, Verdict
from recognition.models.gallery import BoxSource, GalleryImage
from recognition.models.identity import Identity
from recognition.models.invitation import Invitation
from recognition.models.job import Job, JobLine, LineResult
from recognition.models.people import User
from recognition.models.product import Product
from recognition.models.query import Detection, Match, RecognitionQuery, Status
from recognition.models.quota import Quota
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
    "Action",
    "ApiToken",
    "AuditEntry",
    "BoxSource",
    "Catalogue",
    "CropPolicy",
    "Detection",
    "Embedding",
    "FeatureModel",
    "Feedback",
    "GalleryImage",
    "Identity",
    "IndexState",
    "IndexType",
    "Invitation",
    "Job",
    "JobLine",
    "LineResult",
    "Match",
    "Membership",
    "Metric",
    "Product",
    "Quota",
    "RecallSample",
    "RecognitionQuery",
    "Role",
    "ShownLabel",
    "Source",
    "State",
    "Status",
    "User",
    "VectorIndex",
    "Verdict",
    "View",
    "Work",
    "Worker",
]
