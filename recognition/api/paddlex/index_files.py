"""Saved PaddleX indexes over HTTP, for the Python client: out of a catalogue, and into one."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final, cast

from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import ApiView, UploadView, WriteSerializer
from recognition.api.permissions import InCatalogue
from recognition.errors import BadInput, TooLarge
from recognition.models import Role, User
from recognition.services import paddlex, saved_indexes

_FILES: Final = ("vector.index", "id_map.yaml")
_MOST_BYTES: Final = 8 * 2**30


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
        responses=inline_serializer(
            "ImportedIndex",
            {"indexKey": serializers.UUIDField(), "imageCount": serializers.IntegerField()},
        ),
    )
    def create(self, request: Request) -> Response:
        """A saved index becomes a catalogue of yours; the same one again is found, not made."""
        data = self.read(SavedIndex)
        with tempfile.TemporaryDirectory(prefix="saved-index-") as scratch:
            directory = Path(scratch, "index")
            _unpack(data["file"], directory)
            catalogue = saved_indexes.imported(
                cast(User, request.user), directory, feature_model=data.get("feature_model")
            )
        count = paddlex.contents(catalogue).count
        return Response({"indexKey": str(catalogue.key), "imageCount": count})


def _unpack(file: Any, directory: Path) -> None:
    """The two files, whatever folder of the archive they lie in; raises BadInput, TooLarge."""
    directory.mkdir()
    try:
        with zipfile.ZipFile(file) as archive:
            for name in _FILES:
                inside = [one for one in archive.infolist() if Path(one.filename).name == name]
                if len(inside) != 1:
                    raise BadInput(f"the ZIP must hold one {name}", field="file")
                if inside[0].file_size > _MOST_BYTES:
                    raise TooLarge(f"{name} has more than {_MOST_BYTES:,} bytes", field="file")
                with archive.open(inside[0]) as source, (directory / name).open("wb") as target:
                    while piece := source.read(2**20):
                        target.write(piece)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BadInput(f"the file is no usable ZIP: {error}", field="file") from error
