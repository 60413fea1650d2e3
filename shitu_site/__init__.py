"""The Django project. The Celery application loads with it, so that `delay` works everywhere."""

from shitu_site.celery import app as celery_app

__all__ = ["celery_app"]
