"""What a site needs before its first question."""

from __future__ import annotations

import pytest

from recognition.services import setup
from tests import factories

pytestmark = pytest.mark.django_db


def test_the_admins_password_is_made_when_it_is_needed_and_shown_once():
    demo, nothing = setup.ensure_admin(with_password=False)
    assert nothing is None and not demo.has_usable_password()
    admin, password = setup.ensure_admin()
    assert admin == demo and admin.check_password(password)
    assert setup.ensure_admin() == (admin, None)


def test_a_superuser_of_somebodys_own_is_left_alone():
    own = factories.user("root", is_superuser=True)
    own.set_unusable_password()
    own.save()
    assert setup.ensure_admin() == (own, None)
    own.refresh_from_db()
    assert not own.has_usable_password()
