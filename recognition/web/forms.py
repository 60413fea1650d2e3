"""What a visitor may send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, cast

from django import forms
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_lazy as _

from recognition import images
from recognition.errors import RecognitionError
from recognition.models import Catalogue, RecognitionQuery
from recognition.services import queries

if TYPE_CHECKING:
    from recognition.models import User


class RecogniseForm(forms.Form):
    """A picture, the catalogue to look in, and options that override the catalogue's own."""

    catalogue = forms.ModelChoiceField(
        Catalogue.objects.none(), to_field_name="key", empty_label=None, label=_("Catalogue")
    )
    picture = forms.FileField(
        label=_("Picture"),
        error_messages={
            "required": _("Choose, drop or paste a picture first."),
            "empty": _("This file is empty (0 bytes). Send the file again."),
        },
    )
    top_k = forms.IntegerField(
        label=_("Answers per object"), required=False, min_value=1, max_value=queries.MOST_TOP_K
    )
    det_threshold = forms.FloatField(
        label=_("Detection threshold"), required=False, min_value=0, max_value=1, step_size=0.01
    )
    rec_threshold = forms.FloatField(label=_("Recognition threshold"), required=False)

    def __init__(
        self, data: Any = None, files: Any = None, *, user: User, catalogue: Catalogue
    ) -> None:
        super().__init__(data, files, initial={"catalogue": catalogue.key}, label_suffix="")
        self.fields["catalogue"].queryset = Catalogue.objects.visible_to(user).select_related(  # type: ignore[attr-defined]
            "index"
        )
        self.fields["rec_threshold"].widget.attrs["step"] = "any"
        for name in ("top_k", "det_threshold", "rec_threshold"):
            own = getattr(catalogue, name)
            if own is not None:
                self.fields[name].widget.attrs["placeholder"] = f"{own:g}"

    @property
    def options(self) -> list[forms.BoundField]:
        """The fields that may stay empty."""
        return [self["top_k"], self["det_threshold"], self["rec_threshold"]]

    def clean_picture(self) -> images.Picture:
        upload: UploadedFile = self.cleaned_data["picture"]
        self.source_name = upload.name or ""
        try:
            return images.check(cast(BinaryIO, upload), name=self.source_name)
        except RecognitionError as error:
            raise ValidationError(error.message, code=error.code) from error

    def submit(self, *, by: User) -> RecognitionQuery | None:
        """Ask; None, with the reason in `errors`, when what was sent cannot be used."""
        if not self.is_valid():
            return None
        given = self.cleaned_data
        try:
            return queries.submit(
                given["catalogue"],
                given["picture"],
                by=by,
                source_name=self.source_name,
                options=queries.Options(
                    det_threshold=given["det_threshold"],
                    rec_threshold=given["rec_threshold"],
                    top_k=given["top_k"],
                ),
            )
        except RecognitionError as error:
            self.add_error(error.field if error.field in self.fields else None, error.message)
            return None
