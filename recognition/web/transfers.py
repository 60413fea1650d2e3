"""Import and export of a catalogue, and its jobs, for its editors."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from recognition.errors import RoleTooLow
from recognition.models import Job, Role, State
from recognition.services import catalogues
from recognition.web.forms import ExportForm, ImportForm
from recognition.web.htmx import Request, render_part
from recognition.web.views import catalogue_of

MOST_JOBS = 20


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def transfer(request: Request, key: uuid.UUID) -> HttpResponse:
    """Bring a file in, take everything out, see how far that is. htmx asks for the jobs alone."""
    catalogue = catalogue_of(request, key)
    context: dict[str, Any] = {"catalogue": catalogue}
    try:
        catalogues.require_role(request.user, catalogue, Role.EDITOR)
    except RoleTooLow as error:
        context["refused"] = error.message
        return render(request, "recognition/transfer.html", context, status=403)
    bring, take = ImportForm(label_suffix=""), ExportForm(label_suffix="")
    if request.method == "POST":
        form: ImportForm | ExportForm
        if "export" in request.POST:
            form = take = ExportForm(request.POST, label_suffix="")
        else:
            form = bring = ImportForm(request.POST, request.FILES, label_suffix="")
        if form.start(catalogue, by=request.user):
            return redirect("transfer", key=catalogue.key)
    jobs = list(catalogue.jobs.select_related("started_by")[:MOST_JOBS])
    context |= {
        "import_form": bring,
        "export_form": take,
        "jobs": jobs,
        "busy": any(not job.is_finished for job in jobs),
        "files": [
            job.pk
            for job in jobs
            if job.kind == Job.Kind.EXPORT and job.state == State.DONE and job.file
        ],
    }
    failed = bool(bring.errors or take.errors)
    return render_part(request, "transfer", context, status=422 if failed else 200)
