"""What a visitor may send."""

from __future__ import annotations

from smtplib import SMTPException
from threading import Thread
from typing import Any, BinaryIO, cast

import structlog
from django import forms
from django.contrib.auth.forms import PasswordResetForm, SetPasswordMixin
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.core.mail import send_mail
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from recognition import images
from recognition.errors import RecognitionError
from recognition.models import Catalogue, RecognitionQuery, User
from recognition.services import exports, imports, queries

log = structlog.get_logger(__name__)


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


class ImportForm(forms.Form):
    """A file with pictures or products; what it is, its content says."""

    file = forms.FileField(
        label=_("File"),
        help_text=_(
            "ZIP, CSV or XLSX: a PaddleX gallery, a folder a label, a manifest, an export."
        ),
    )
    dry_run = forms.BooleanField(label=_("Only judge it, import nothing"), required=False)

    def clean_file(self) -> UploadedFile:
        upload: UploadedFile = self.cleaned_data["file"]
        try:
            imports.check_size(upload.size)
        except RecognitionError as error:
            raise ValidationError(error.message, code=error.code) from error
        return upload

    def start(self, catalogue: Catalogue, *, by: User) -> bool:
        """Queue the import; False, with the reason in `errors`, when it cannot be."""
        if self.is_valid():
            file, dry_run = self.cleaned_data["file"], self.cleaned_data["dry_run"]
            try:
                imports.start(
                    catalogue, cast(BinaryIO, file), by=by, name=file.name or "", dry_run=dry_run
                )
            except RecognitionError as error:
                self.add_error(error.field if error.field in self.fields else None, error.message)
        return not self.errors


class ExportForm(forms.Form):
    """Everything in one ZIP."""

    embeddings = forms.BooleanField(label=_("With the vectors"), required=False)

    def start(self, catalogue: Catalogue, *, by: User) -> bool:
        """Queue the export; False, with the reason in `errors`, when it cannot be."""
        if self.is_valid():
            try:
                exports.start(catalogue, by=by, embeddings=self.cleaned_data["embeddings"])
            except RecognitionError as error:
                self.add_error(None, error.message)
        return not self.errors


class ForgottenPasswordForm(PasswordResetForm):
    """The address of an account. The e-mail goes out beside the answer, which therefore takes as
    long for an address that nobody has."""

    def send_mail(
        self,
        subject_template_name: str,
        email_template_name: str,
        context: dict[str, Any],
        from_email: str | None,
        to_email: str,
        html_email_template_name: str | None = None,
    ) -> None:
        kwargs = {"uidb64": context["uid"], "token": context["token"]}
        body = gettext(
            "Somebody, probably you, wants to choose a new password for “%(name)s”.\n\n"
            "Open this link to do so; it works once:\n%(link)s\n\n"
            "If it was not you, do nothing; your password stays as it is.\n"
        ) % {
            "name": context["user"].get_username(),
            "link": context["absolute"](reverse("password-reset", kwargs=kwargs)),
        }
        subject = gettext("A new password")
        Thread(target=_send, args=(subject, body, to_email)).start()


def _send(subject: str, body: str, to: str) -> None:
    try:
        send_mail(subject, body, None, [to])
    except (SMTPException, OSError) as error:
        log.warning("password_mail_not_sent", reason=str(error))


class JoinForm(SetPasswordMixin, forms.Form):
    """A new account for the address `email`, which an invitation was sent to."""

    name = forms.CharField(
        label=_("Username"),
        max_length=144,  # some room is left for a number
        validators=[UnicodeUsernameValidator()],
        help_text=_("What you sign in with. If it is taken, a number is added."),
    )
    password1, password2 = SetPasswordMixin.create_password_fields()

    def __init__(self, data: Any = None, *, email: str) -> None:
        super().__init__(data, label_suffix="")
        self.email = email
        self.fields["name"].widget.attrs["autocomplete"] = "username"

    def clean(self) -> dict[str, Any]:
        self.validate_passwords()
        self.validate_password_for_user(
            User(username=self.cleaned_data.get("name", ""), email=self.email)
        )
        return super().clean() or {}
