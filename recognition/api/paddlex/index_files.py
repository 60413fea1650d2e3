"""Saved PaddleX indexes over HTTP, for the Python client: out of a catalogue, and into one."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from django.core.files.uploadedfile import UploadedFile
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import ApiView, UploadView, WriteSerializer
from recognition.api.catalogues import require_models
from recognition.api.permissions import InCatalogue
from recognition.errors import BadInput, TooLarge
from recognition.models import Role, User
from recognition.services import catalogues, imports, paddlex, saved_indexes
from recognition.services.imports.places import Archive
from recognition.services.index_child import LABELS, MOST_LABELS_BYTES, VECTORS


class SavedIndex(WriteSerializer):
    """`vector.index` and `id_map.yaml` in a ZIP, and the network that made them."""

    file = serializers.FileField()
    feature_model = serializers.CharField(
        required=False, help_text="Default: the site's; the files do not say."
    )


class PaddlexIndexView(InCatalogue, ApiView):
    sparse = False
    roles = {"retrieve": Role.EDITOR}

    @extend_schema(
        operation_id="catalogues_paddlex_index",
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
    )
    def retrieve(self, request: Request, key: Any) -> FileResponse:
        """The vectors and labels as PaddleX saves them: vector.index and id_map.yaml in a ZIP."""
        return FileResponse(
            saved_indexes.zipped(self.catalogue),
            as_attachment=True,
            filename=f"{self.catalogue.key}.zip",
            content_type="application/zip",
        )


class PaddlexIndexListView(UploadView):
    sparse = False

    @extend_schema(
        operation_id="paddlex_indexes_import",
        request={"multipart/form-data": SavedIndex},
        responses={
            200: inline_serializer(
                "ImportedIndex",
                {"indexKey": serializers.UUIDField(), "imageCount": serializers.IntegerField()},
            )
        },
    )
    def create(self, request: Request) -> Response:
        """A saved index becomes a catalogue of yours; the same one again is found, not made."""
        user = cast(User, request.user)
        catalogues.require_unlimited(user)
        data = self.read(SavedIndex)
        require_models(data)
        imports.check_size(data["file"].size)
        with tempfile.TemporaryDirectory(prefix="saved-index-") as scratch:
            directory = Path(scratch, "index")
            _unpack(data["file"], directory)
            catalogue = saved_indexes.imported(
                user, directory, feature_model=data.get("feature_model")
            )
        count = paddlex.contents(catalogue).count
        return Response({"indexKey": str(catalogue.key), "imageCount": count})


def _unpack(file: UploadedFile, directory: Path) -> None:
    """The two files, whatever folder of the archive they lie in; raises BadInput, TooLarge."""
    directory.mkdir()
    # The client does not compress, and vectors hardly can be: more than that is a bomb.
    most = {VECTORS: max(4 * cast(int, file.size), MOST_LABELS_BYTES), LABELS: MOST_LABELS_BYTES}
    with closing(Archive(cast(BinaryIO, file.file))) as archive:
        for name in most:
            inside = [one for one in archive.names() if PurePosixPath(one).name == name]
            if len(inside) != 1:
                raise BadInput(f"the ZIP must hold one {name}", field="file")
            with archive.open(inside[0]) as source, (directory / name).open("wb") as target:
                while piece := source.read(2**20):
                    if target.tell() + len(piece) > most[name]:
                        raise TooLarge(f"{name} has more than {most[name]:,} bytes", field="file")
                    target.write(piece)
