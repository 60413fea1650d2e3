"""Users and groups, in the theme of the other screens."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group, Permission
from django.db.models import ManyToManyField
from django.forms import BaseModelFormSet, ModelForm, ModelMultipleChoiceField
from django.http import HttpRequest
from django.utils.translation import gettext as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from recognition.models import Identity, User
from recognition.services import accounts

admin.site.unregister(Group)


def permission_name(permission: Permission) -> str:
    """What it allows, in the language of the page; Django stores its names in English."""
    names = {
        "add": _("may add"),
        "change": _("may change"),
        "delete": _("may delete"),
        "view": _("may view"),
    }
    act = permission.codename.partition("_")[0]
    return f"{permission.content_type} | {names.get(act, permission.name)}"


class WithPermissions(ModelAdmin):
    """Chooses among permissions, by what they allow."""

    def formfield_for_manytomany(
        self, db_field: ManyToManyField[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelMultipleChoiceField | None:
        permissions = db_field.related_model is Permission
        if permissions:
            kwargs["queryset"] = Permission.objects.select_related("content_type")
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if permissions and field is not None:
            field.label_from_instance = permission_name
        return field


class IdentityInline(TabularInline):
    """With what else somebody signs in; they connect it themselves, staff can only end it."""

    model = Identity
    fields = readonly_fields = ("issuer", "subject", "created_at")
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False


@admin.register(User)
class UserAdmin(BaseUserAdmin, WithPermissions):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    show_full_result_count = False
    list_display = ("username", "email", "is_staff", "is_superuser", "is_active", "last_login")
    inlines = (IdentityInline,)

    def save_formset(
        self, request: HttpRequest, form: ModelForm, formset: BaseModelFormSet, change: bool
    ) -> None:
        formset.save(commit=False)
        for identity in formset.deleted_objects:
            accounts.disconnect(identity)


@admin.register(Group)
class GroupAdmin(BaseGroupAdmin, WithPermissions):
    show_full_result_count = False
