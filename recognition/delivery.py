"""How a stored file goes to somebody. Whether they may have it is decided before."""

from __future__ import annotations

import mimetypes
from pathlib import PurePath
from urllib.parse import quote

from django.conf import settings
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header

from recognition.errors import TryAgain
from recognition.services import files, pictures

_KEPT = "private, max-age=86400, immutable"  # a stored file never changes


def stored(name: str, *, cache: str, save_as: str = "") -> HttpResponseBase:
    """The stored file `name`, by whoever sends it best.

    A bucket does it itself: the answer is a redirect to a signed address that soon expires. With
    SHITU_ACCEL_REDIRECT, the internal location under which nginx has SHITU_MEDIA_DIR, nginx does.
    Otherwise it is sent from here. `cache` is the Cache-Control of the file, `save_as` the name
    under which it is offered for saving. Raises FileNotFoundError if it is found to be gone.
    """
    # Not strict: the strict list of Python 3.11 has no WebP.
    kind = mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"
    if url := files.signed_url(name, kind=kind, save_as=save_as):
        response: HttpResponseBase = HttpResponseRedirect(url)
        # A browser that comes back to a remembered redirect must find its address still good.
        response["Cache-Control"] = f"private, max-age={settings.SHITU_S3_URL_SECONDS // 2}"
        return response
    if prefix := settings.SHITU_ACCEL_REDIRECT:
        response = HttpResponse(content_type=kind)
        response["X-Accel-Redirect"] = f"{prefix.rstrip('/')}/{quote(name)}"
    else:
        response = FileResponse(default_storage.open(name), content_type=kind)
    response["Cache-Control"] = cache
    if save_as:
        response["Content-Disposition"] = str(content_disposition_header(True, save_as))
    return response


def picture(request: HttpRequest, name: str, side: int | None = None) -> HttpResponseBase:
    """For an `<img>`: the stored picture, or a JPEG of it at most `side` pixels wide and high.

    The browser of whoever may see it keeps it, and a small one that it has kept for long is not
    made again. 503 while the storage does not answer. Raises Http404 when the file is gone.
    """
    etag = f'"{PurePath(name).name}:{side}"'  # a stored file never changes and its name is random
    try:
        if side is None:
            return stored(name, cache=_KEPT)
        response = get_conditional_response(request, etag=etag) or HttpResponse(
            pictures.thumbnail(name, side), content_type="image/jpeg"
        )
    except FileNotFoundError as error:
        raise Http404 from error
    except TryAgain:
        return HttpResponse(status=503)
    response["Cache-Control"], response["ETag"] = _KEPT, etag
    return response
