"""Accounts made for the invited and for whoever a provider vouches for; several at once."""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread

import pytest
from django.db import connection

from recognition.errors import NotFound, SignInRefused
from recognition.models import AuditEntry, Identity, User
from recognition.services import accounts, members
from recognition.services.accounts import Claims
from tests import factories

ANN = Claims("https://login.example", "ann-17", "ann@example.org", is_verified=True, name="ann")


def at_once(act: Callable[[int], object], times: int = 4) -> list[object]:
    """What became of `act` in several threads that begin together; errors too."""
    start, became = Barrier(times), []

    def run(number: int) -> None:
        start.wait()
        try:
            became.append(act(number))
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            became.append(error)
        finally:
            connection.close()

    threads = [Thread(target=run, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return became


@pytest.mark.django_db(transaction=True)
def test_one_person_in_several_windows_is_one_account(settings):
    settings.SHITU_OIDC_CREATE_USERS = True
    became = at_once(lambda _: accounts.sign_in(ANN))
    [user] = User.objects.all()
    assert became == [user] * 4
    assert Identity.objects.get().user == user


@pytest.mark.django_db(transaction=True)
def test_two_identities_for_one_address_at_once(settings):
    settings.SHITU_OIDC_CREATE_USERS = True
    others = [Claims(ANN.issuer, f"ann-{n}", ANN.email, is_verified=True) for n in range(3)]
    became = at_once(lambda number: accounts.sign_in(others[number]), 3)
    assert User.objects.count() == Identity.objects.count() == 1
    assert sum(isinstance(one, SignInRefused) for one in became) == 2


@pytest.mark.django_db(transaction=True)
def test_an_invitation_that_is_used_twice_at_once_makes_one_account(catalogue):
    _, text = members.invite(catalogue, "bob@example.org", "viewer", by=catalogue.owner, link=str)
    became = at_once(lambda number: accounts.join(text, f"bob{number}", "gr33n-tea"))
    assert sum(isinstance(one, NotFound) for one in became) == 3
    assert User.objects.filter(email="bob@example.org").count() == 1


@pytest.mark.django_db(transaction=True)
def test_one_name_for_several_at_once(catalogue):
    texts = [
        members.invite(catalogue, f"{n}@example.org", "viewer", by=catalogue.owner, link=str)[1]
        for n in range(4)
    ]
    became = at_once(lambda number: accounts.join(texts[number], "bob", "gr33n-tea"))
    names = [one.user.username for one in became]
    assert len(set(names)) == 4 and all(name.startswith("bob") for name in names)


@pytest.mark.django_db
@pytest.mark.parametrize("subject", ["", "x" * 256, "a\x00b", "a\ud800b", "a\nb"])
def test_a_subject_that_nobody_can_have(subject):
    with pytest.raises(SignInRefused):
        accounts.sign_in(Claims(ANN.issuer, subject, ANN.email, is_verified=True))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address", ["", "nobody", "a@b@c.org", "a\ud800@b.org", "a\x00@b.org", f"{'x' * 250}@b.org"]
)
def test_an_address_that_is_none_verifies_nothing(settings, address):
    settings.SHITU_OIDC_CREATE_USERS = True
    with pytest.raises(SignInRefused):
        accounts.sign_in(Claims(ANN.issuer, "x", address, is_verified=True))
    assert not User.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("wish", "name"),
    [("Ann Ō", "Ann-Ō"), ("<script>", "script"), ("", "user"), ("/\x00\ud800", "user"),
     ("x" * 500, "x" * 144), ("\uff41nn", "ann")],
)  # fmt: skip
def test_what_the_provider_calls_them_becomes_a_name(settings, wish, name):
    settings.SHITU_OIDC_CREATE_USERS = True
    made = accounts.sign_in(Claims(ANN.issuer, "x", "z@example.org", is_verified=True, name=wish))
    expected = "z" if not wish else name
    assert made.username == expected


@pytest.mark.django_db
def test_a_second_provider_is_connected_beside_the_first():
    ann = factories.user("ann", email=ANN.email)
    accounts.sign_in(ANN)
    other = Claims("https://other.example", "a", ANN.email, is_verified=True)
    assert accounts.sign_in(other) == ann
    assert ann.identities.count() == 2


@pytest.mark.django_db
def test_connecting_twice_is_as_good_as_once():
    ann = factories.user("ann")
    for _ in range(2):
        accounts.connect(ann, ANN)
    assert AuditEntry.objects.filter(action="account.connect").count() == 1
    with pytest.raises(SignInRefused) as refused:
        accounts.connect(ann, Claims(ANN.issuer, "another"))
    assert refused.value.reason == "connected"


@pytest.mark.django_db
def test_an_identity_that_is_ended_twice_is_written_down_once(user):
    accounts.connect(user, ANN)
    first, second = Identity.objects.get(), Identity.objects.get()
    accounts.disconnect(first)
    accounts.disconnect(second)
    assert AuditEntry.objects.filter(action="account.disconnect").count() == 1
