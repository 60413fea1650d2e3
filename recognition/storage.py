"""Pictures in an S3 bucket, with SHITU_MEDIA_STORAGE=s3; needs the packages of requirements-s3.txt.

Django loads this when the settings say so, and never otherwise.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from tempfile import SpooledTemporaryFile
from typing import Any, Final

import structlog
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.files.base import File
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from storages.backends.s3 import S3Storage

from recognition.errors import TryAgain

log = structlog.get_logger(__name__)

# A picture is read in memory, the archive of an import on disk.
_IN_MEMORY: Final = 32 * 2**20


class Bucket(S3Storage):
    """The SHITU_S3_* settings as a Django storage, for Amazon's service and others like it.

    Objects are private: they are read with our key, or by an address from `signed_url`. Every
    method raises TryAgain when the service, asked several times, does not do what it should.
    """

    def get_default_settings(self) -> dict[str, Any]:
        known: dict[str, Any] = super().get_default_settings() | {
            "bucket_name": settings.SHITU_S3_BUCKET,
            "location": settings.SHITU_S3_PREFIX.strip("/"),
            "region_name": settings.SHITU_S3_REGION or None,
            "endpoint_url": settings.SHITU_S3_ENDPOINT or None,
            "file_overwrite": True,  # names are random, so none needs to be looked for first
            "client_config": Config(
                signature_version="s3v4",
                s3={"addressing_style": settings.SHITU_S3_ADDRESSING},
                # Newer SDKs add checksums that services other than Amazon's may not know.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": 3},
                connect_timeout=5,
                read_timeout=30,
                max_pool_connections=32,
            ),
        }
        if settings.SHITU_S3_ACCESS_KEY:  # else AWS_ACCESS_KEY_ID, a profile, the machine's role
            known |= {
                "access_key": settings.SHITU_S3_ACCESS_KEY,
                "secret_key": settings.SHITU_S3_SECRET_KEY,
                "security_token": None,
                "session_profile": None,
            }
        return known

    def signed_url(self, name: str, seconds: int, *, kind: str, save_as: str = "") -> str:
        """An address from which anybody who has it fetches an object, for so many seconds.

        It is answered with content type `kind`, and offered for saving under the name `save_as`.
        Nothing is asked of the service, so the object may turn out to be gone.
        """
        answer = {
            "ResponseContentType": kind,
            "ResponseCacheControl": f"private, max-age={seconds}, immutable",
        }
        if save_as:
            answer["ResponseContentDisposition"] = str(content_disposition_header(True, save_as))
        with _named_errors(name):
            return str(
                self._signer.generate_presigned_url(
                    "get_object",
                    Params={
                        "Bucket": self.bucket_name,
                        "Key": self._normalize_name(name),
                        **answer,
                    },
                    ExpiresIn=seconds,
                )
            )

    def require(self) -> None:
        """Raises TryAgain unless the bucket is there and our key opens it."""
        try:
            with _named_errors(""):
                self._client.head_bucket(Bucket=self.bucket_name)
        except FileNotFoundError as error:
            raise TryAgain("there is no such bucket") from error

    def exists(self, name: str) -> bool:
        try:
            with _named_errors(name):
                self._client.head_object(Bucket=self.bucket_name, Key=self._normalize_name(name))
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        with _named_errors(name):
            super().delete(name)

    def _open(self, name: str, mode: str = "rb") -> File:
        """The whole object, by one request. Raises FileNotFoundError."""
        if mode != "rb":
            raise ValueError("an object is written as a whole, by save()")
        file = SpooledTemporaryFile(_IN_MEMORY, dir=settings.FILE_UPLOAD_TEMP_DIR)  # noqa: SIM115
        try:
            with _named_errors(name):
                key = self._normalize_name(name)
                answer = self._client.get_object(Bucket=self.bucket_name, Key=key)
                with closing(answer["Body"]) as body:
                    shutil.copyfileobj(body, file, 2**20)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return File(file, name)

    def _save(self, name: str, content: File) -> str:
        with _named_errors(name):
            return str(super()._save(name, content))

    @property
    def _client(self) -> Any:
        return self.bucket.meta.client

    @cached_property
    def _signer(self) -> Any:
        """Of the address that browsers know the service by: it is part of the signature."""
        if not settings.SHITU_S3_PUBLIC_ENDPOINT:
            return self._client
        return self._create_session().client(
            "s3",
            region_name=self.region_name,
            endpoint_url=settings.SHITU_S3_PUBLIC_ENDPOINT,
            config=self.client_config,
        )


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Errors of the SDK as FileNotFoundError and TryAgain."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchKey"):
            raise FileNotFoundError(f"there is no object {name}") from error
        raise _not_answered(code, error) from error
    except (BotoCoreError, Boto3Error) as error:
        raise _not_answered(type(error).__name__, error) from error


def _not_answered(why: str, error: Exception) -> TryAgain:
    log.error("bucket_does_not_answer", reason=str(error))
    return TryAgain(
        _(
            "the storage of pictures does not do what it should (%(why)s); try again, and if that "
            "does not help tell whoever runs this site"
        )
        % {"why": why}
    )
