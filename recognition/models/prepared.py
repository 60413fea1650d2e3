"""Querysets that every recognition needs, compiled to SQL once.

Django builds and compiles a queryset anew at each use, which costs several times what PostgreSQL
needs to find a row by its key. What is `prepared` is still made of querysets, so who may see what
is decided in the same place as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import lru_cache, wraps
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

from django.db import connections
from django.db.models import Expression, QuerySet
from django.db.models.query import ModelIterable

_P = ParamSpec("_P")
_Row = TypeVar("_Row")


def prepared(build: Callable[_P, QuerySet[Any, _Row]]) -> Callable[_P, list[_Row]]:
    """Makes of a function that builds a queryset one that runs it, and returns its rows.

    Positional arguments are values: `build` sees placeholders for them, to compare columns with.
    Keyword arguments are part of the statement, which is compiled once for each of them; whatever
    else `build` reads, a setting or the time, is read only then. Rows are instances, or the tuples
    of `values_list`; what is prefetched is not.
    """

    @lru_cache
    def compiled(count: int, **shape: Any) -> _Compiled:
        return _Compiled(build(*map(_Given, range(count)), **shape))  # type: ignore[arg-type]

    @wraps(build)
    def run(*values: _P.args, **shape: _P.kwargs) -> list[_Row]:
        return compiled(len(values), **shape).rows(values)  # type: ignore[arg-type]

    return run


class _Given(Expression):
    """Stands in the SQL, and among its parameters, for one of the values of a run."""

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return "%s", (self,)


class _Compiled:
    """The SQL of a queryset, with Django's compiler, which knows what its columns mean."""

    def __init__(self, queryset: QuerySet[Any, Any]) -> None:
        self._using = queryset.db
        self._makes_instances = issubclass(queryset._iterable_class, ModelIterable)
        self._compiler: Any = queryset.query.get_compiler(using=self._using)
        self._sql, self._parameters = self._compiler.as_sql()
        self._converters = self._compiler.get_converters([one for one, *_ in self._compiler.select])
        self._compiler.connection = None  # it is of this thread, and the next run may not be

    def rows(self, values: tuple[Any, ...]) -> list[Any]:
        parameters = [
            values[one.position] if isinstance(one, _Given) else one for one in self._parameters
        ]
        compiler = copy(self._compiler)
        compiler.connection = connections[self._using]
        compiler.as_sql = lambda: (self._sql, parameters)
        compiler.get_converters = lambda columns: self._converters
        if not self._makes_instances:
            return list(compiler.results_iter(tuple_expected=True))
        # As much of a queryset as making instances of rows takes.
        queryset: Any = SimpleNamespace(
            db=self._using,
            query=SimpleNamespace(get_compiler=lambda using: compiler),
            _known_related_objects={},
        )
        return list(ModelIterable(queryset))
