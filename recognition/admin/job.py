"""Jobs: how far they are, what became of each line, and how they are stopped and tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django_htmx.http import HttpResponseClientRedirect
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from recognition import delivery
from recognition.admin.work import ReadOnlyAdmin, WithState
from recognition.errors import RecognitionError
from recognition.models import Job, JobLine, State, User
from recognition.services import jobs


class JobLineInline(TabularInline):
    model = JobLine
    extra = 0
    per_page = 50
    hide_title = True
    can_delete = False
    fields = readonly_fields = ("number", "text", "result", "reason", "image")
    ordering = ("number",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobLine]:
        return super().get_queryset(request).select_related("image")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Job)
class JobAdmin(WithState, ReadOnlyAdmin):
    list_display = (
        "key",
        "kind",
        "catalogue",
        "coloured_state",
        "progress",
        "started_by",
        "created_at",
        "finished_at",
    )
    list_select_related = ("catalogue", "started_by")
    list_filter = ("state", "kind", "catalogue")
    search_fields = ("key", "catalogue__name", "started_by__username")
    inlines = (JobLineInline,)
    actions = ("cancel", "retry")
    actions_detail = ("cancel_this", "retry_this")
    fields = (
        ("kind", "catalogue"),
        ("state", "error"),
        "progress",
        ("source_name", "dry_run"),
        ("started_by", "key"),
        ("created_at", "finished_at"),
        "downloads",
    )

    def get_urls(self) -> list[URLPattern]:
        def at(name: str, view: Callable[..., HttpResponseBase]) -> URLPattern:
            own = self.admin_site.admin_view(view)
            return path(f"<int:pk>/{name}/", own, name=f"recognition_job_{name}")

        return [at("report", self.report_view), at("file", self.file_view), *super().get_urls()]

    def report_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """All lines as CSV."""
        job = self._viewed(request, pk)
        return StreamingHttpResponse(
            jobs.report(job),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{job.key}.csv"'},
        )

    def file_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """The ZIP of an export that is done."""
        job = self._viewed(request, pk)
        if not _has_file(job):
            raise Http404
        try:
            return delivery.stored(
                str(job.file.name), cache="private, no-store", save_as=job.source_name
            )
        except FileNotFoundError as error:
            raise Http404 from error

    def _viewed(self, request: HttpRequest, pk: int) -> Job:
        job = get_object_or_404(Job, pk=pk)
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        return job

    @display(description=_("to save"))
    def downloads(self, obj: Job) -> SafeString:
        names = [("report", _("the report"))] + (
            [("file", _("the export"))] if _has_file(obj) else []
        )
        links = (
            (reverse(f"admin:recognition_job_{name}", args=[obj.pk]), text) for name, text in names
        )
        return format_html_join(" · ", '<a href="{}" class="underline">{}</a>', links)

    def has_steer_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm("recognition.change_job")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only what can be done to a job as it is now."""
        job = self.get_object(request, object_id)
        if job is None:
            return []
        again = job.is_finished and (job.state == State.FAILED or bool(job.failed))
        possible = {self.cancel_this: not job.is_finished, self.retry_this: again}
        return [
            one for one in super().get_actions_detail(request, object_id) if possible[one.method]
        ]

    @display(description=_("progress"))
    def progress(self, obj: Job) -> SafeString:
        total = max(obj.total, obj.done + obj.failed, 1)
        return render_to_string(
            "admin/recognition/progress.html",
            {
                "done": f"{100 * obj.done / total:.1f}%",
                "failed": f"{100 * obj.failed / total:.1f}%",
                "job": obj,
            },
        )

    @action(description=_("Cancel: what was done stays"), permissions=["steer"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        count = _each(request, queryset, jobs.cancel)
        if count:
            messages.success(
                request,
                ngettext("%(n)d job cancelled.", "%(n)d jobs cancelled.", count) % {"n": count},
            )

    @action(description=_("Try failed lines again"), permissions=["steer"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        count = _each(request, queryset, jobs.retry)
        if count:
            messages.success(
                request,
                ngettext("%(n)d job goes on.", "%(n)d jobs go on.", count) % {"n": count},
            )

    @action(
        description=_("Cancel the job"),
        permissions=["steer"],
        icon="cancel",
        variant=ActionVariant.DANGER,
        dialog={
            "title": _("Cancel the job"),
            "description": _("It stops; what was done stays."),
            "form_class": None,
            "form_submit_text": _("Stop it"),
        },
    )
    def cancel_this(
        self, request: HttpRequest, form: BaseDialogForm, object_id: Any
    ) -> HttpResponse:
        return self._steer(request, object_id, self.cancel)

    @action(
        description=_("Try failed lines again"),
        permissions=["steer"],
        icon="replay",
        dialog={
            "title": _("Try failed lines again"),
            "description": _("Also those that a cancelled job never came to."),
            "form_class": None,
            "form_submit_text": _("Try again"),
        },
    )
    def retry_this(
        self, request: HttpRequest, form: BaseDialogForm, object_id: Any
    ) -> HttpResponse:
        return self._steer(request, object_id, self.retry)

    def _steer(
        self, request: HttpRequest, object_id: Any, act: Callable[[HttpRequest, Any], object]
    ) -> HttpResponse:
        job = get_object_or_404(Job, pk=object_id)
        act(request, Job.objects.filter(pk=job.pk))
        return HttpResponseClientRedirect(reverse("admin:recognition_job_change", args=[job.pk]))


def _has_file(job: Job) -> bool:
    return job.kind == Job.Kind.EXPORT and job.state == State.DONE and bool(job.file)


def _each(request: HttpRequest, queryset: QuerySet[Job], act: Callable[..., object]) -> int:
    """Do it to each job; what is refused is told and stops no other. Returns how many it was."""
    done = 0
    for job in queryset.order_by("pk"):
        try:
            act(job, by=cast(User, request.user))
        except RecognitionError as error:
            messages.error(request, f"{job}: {error.message}")
        else:
            done += 1
    return done
