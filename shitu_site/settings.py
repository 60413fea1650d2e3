"""Every setting, read once from the environment. The README's table describes each one.

With `DATABASE_URL` / `REDIS_URL` unset the project runs its own PostgreSQL / Valkey under
`SHITU_VAR_DIR`; with them set, nothing of that starts.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from django.templatetags.static import static
from django.utils.translation import gettext_lazy as _

from shitu_site import embedded, logs

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
environ.Env.read_env(BASE_DIR / ".env")


def _directory(name: str, default: Path) -> Path:
    return Path(env.str(name, default=str(default))).expanduser().resolve()


def _secret_key() -> str:
    """`SHITU_SECRET_KEY`, or one made at the first start and kept in a file only we can read."""
    if key := env.str("SHITU_SECRET_KEY", default=""):
        return key
    path = SHITU_VAR_DIR / "secret_key"
    try:
        SHITU_VAR_DIR.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Whole or not there, whoever else starts at this moment; readable by its owner only.
            with NamedTemporaryFile("w", dir=SHITU_VAR_DIR) as file:
                file.write(get_random_secret_key())
                file.flush()
                with suppress(FileExistsError):
                    os.link(file.name, path)
        key = path.read_text()
    except OSError as error:
        raise ImproperlyConfigured(
            f"the directory SHITU_VAR_DIR={SHITU_VAR_DIR} cannot be written ({error.strerror}): "
            "make it writable, or set SHITU_VAR_DIR to a directory that is"
        ) from error
    if not key:
        # Every process would make up another, and none accept what the others signed.
        raise ImproperlyConfigured(f"{path} is empty: remove it, and the next start makes another")
    return key


def _pipeline_settings(path: str) -> dict[str, Any]:
    """What the file of SHITU_PIPELINE_CONFIG decides."""
    if not path:
        return {}
    from recognition import pipeline_file
    from recognition.errors import RecognitionError

    try:
        return pipeline_file.read(Path(path)).settings()
    except RecognitionError as error:
        raise ImproperlyConfigured(f"SHITU_PIPELINE_CONFIG: {error.message}") from error


def _engine_options(pipeline: dict[str, Any]) -> dict[str, Any]:
    """Options of the engine; those of the pipeline file only for the engine that it names."""
    if text := env.str("SHITU_ENGINE_OPTIONS", default=""):
        try:
            options = json.loads(text)
        except ValueError:
            options = None
        if not isinstance(options, dict):
            raise ImproperlyConfigured(
                "SHITU_ENGINE_OPTIONS must be a JSON object, such as "
                '{"trt_use_dynamic_shapes": true}'
            )
        return options
    if env.str("SHITU_ENGINE", default=pipeline.get("SHITU_ENGINE")) == pipeline.get(
        "SHITU_ENGINE"
    ):
        return dict(pipeline.get("SHITU_ENGINE_OPTIONS", {}))
    return {}


# --- Where things are -----------------------------------------------------------------------------
SHITU_VAR_DIR = _directory("SHITU_VAR_DIR", BASE_DIR / "var")
SHITU_MODELS_DIR = _directory("SHITU_MODELS_DIR", SHITU_VAR_DIR / "models")
MEDIA_ROOT = _directory("SHITU_MEDIA_DIR", SHITU_VAR_DIR / "media")
STATIC_ROOT = SHITU_VAR_DIR / "static"
STATIC_URL = "/static/"

# Pictures in files below MEDIA_ROOT, or in a bucket.
_MEDIA_STORAGES = {
    "local": "django.core.files.storage.FileSystemStorage",
    "s3": "recognition.storage.Bucket",
}
SHITU_MEDIA_STORAGE = env.str("SHITU_MEDIA_STORAGE", default="local")
if SHITU_MEDIA_STORAGE not in _MEDIA_STORAGES:
    raise ImproperlyConfigured(
        f"SHITU_MEDIA_STORAGE={SHITU_MEDIA_STORAGE} is none of {', '.join(_MEDIA_STORAGES)}"
    )
SHITU_S3_BUCKET = env.str("SHITU_S3_BUCKET", default="")
SHITU_S3_PREFIX = env.str("SHITU_S3_PREFIX", default="")
SHITU_S3_REGION = env.str("SHITU_S3_REGION", default="")
SHITU_S3_ENDPOINT = env.str("SHITU_S3_ENDPOINT", default="")
SHITU_S3_PUBLIC_ENDPOINT = env.str("SHITU_S3_PUBLIC_ENDPOINT", default="")
SHITU_S3_ADDRESSING = env.str("SHITU_S3_ADDRESSING", default="auto")
SHITU_S3_ACCESS_KEY = env.str("SHITU_S3_ACCESS_KEY", default="")
SHITU_S3_SECRET_KEY = env.str("SHITU_S3_SECRET_KEY", default="")
SHITU_S3_URL_SECONDS = env.int("SHITU_S3_URL_SECONDS", default=300)

# --- Safety ---------------------------------------------------------------------------------------
SECRET_KEY = _secret_key()
DEBUG = env.bool("SHITU_DEBUG", default=False)
ALLOWED_HOSTS = env.list("SHITU_ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("SHITU_CSRF_TRUSTED_ORIGINS", default=[])
SHITU_HTTPS = env.bool("SHITU_HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SHITU_HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SHITU_HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if SHITU_HTTPS else 0
# Whose address it is, in the log, for locks and limits: who connects, or whom the proxies name. One
# proxy writes one address; a header that tells of more was begun by the client and is not believed.
SHITU_PROXIES = env.int("SHITU_PROXIES", default=0)
IPWARE_META_PRECEDENCE_ORDER = ("HTTP_X_FORWARDED_FOR", "REMOTE_ADDR")[not SHITU_PROXIES :]
IPWARE_META_PROXY_COUNT = SHITU_PROXIES - 1 if SHITU_PROXIES else None
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
AUTH_USER_MODEL = "recognition.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
SHITU_SITE_URL = env.str("SHITU_SITE_URL", default="")
# Sign-in with an OpenID Connect provider: on when the first three are set.
SHITU_OIDC_ISSUER = env.str("SHITU_OIDC_ISSUER", default="")
SHITU_OIDC_CLIENT_ID = env.str("SHITU_OIDC_CLIENT_ID", default="")
SHITU_OIDC_CLIENT_SECRET = env.str("SHITU_OIDC_CLIENT_SECRET", default="")
SHITU_OIDC_NAME = env.str("SHITU_OIDC_NAME", default="") or urlsplit(SHITU_OIDC_ISSUER).hostname
SHITU_OIDC_SCOPES = env.str("SHITU_OIDC_SCOPES", default="openid email profile")
SHITU_OIDC_CREATE_USERS = env.bool("SHITU_OIDC_CREATE_USERS", default=False)
SHITU_PASSWORD_LOGIN = env.bool("SHITU_PASSWORD_LOGIN", default=True)
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    *(["django.contrib.auth.backends.ModelBackend"] if SHITU_PASSWORD_LOGIN else []),
    "recognition.web.backends.ProviderBackend",
]
AXES_FAILURE_LIMIT = SHITU_LOGIN_FAILURES = env.int("SHITU_LOGIN_FAILURES", default=10)
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "recognition/locked_out.html"
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

EMAIL_CONFIG = env.email_url("SHITU_EMAIL_URL", default="consolemail://")
vars().update(EMAIL_CONFIG)
EMAIL_TIMEOUT = EMAIL_CONFIG.get("EMAIL_TIMEOUT", 15)
DEFAULT_FROM_EMAIL = env.str("SHITU_EMAIL_FROM", default="shitu@localhost")

# --- Servers --------------------------------------------------------------------------------------
_own_postgres = not env.str("DATABASE_URL", default="")
_own_valkey = not env.str("REDIS_URL", default="")
_services = (
    embedded.acquire(SHITU_VAR_DIR, postgres=_own_postgres, valkey=_own_valkey)
    if _own_postgres or _own_valkey
    else None
)
_database = env.db_url_config(
    _services.database_url if _own_postgres and _services else env.str("DATABASE_URL")
)
_database["HOST"] = _database.get("OPTIONS", {}).pop("host", _database["HOST"])
DATABASES = {
    "default": {
        **_database,
        "CONN_MAX_AGE": env.int("SHITU_CONN_MAX_AGE", default=60),
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            **_database.get("OPTIONS", {}),
            # No answer takes long enough to be worth compiling. And what an exact scan leaves out
            # (images of products that are switched off) is looked up in a hash, up to millions:
            # without one the scan would never end. And the server looks whether whoever asked
            # is still there: the statement of a killed process would go on, and hold its locks, for
            # the hours that an index may take.
            "options": "-c jit=off -c hash_mem_multiplier=64"
            " -c client_connection_check_interval=10s",
        },
    }
}
REDIS_URL = _services.redis_url if _own_valkey and _services else env.str("REDIS_URL")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "shitu",
    },
    # What is worth remembering, but not a round trip.
    "process": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 1000},
    },
}

CELERY_BROKER_URL = embedded.broker_url(REDIS_URL)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Celery would open a database connection for every task; `shitu_site/celery.py` looks after it.
CELERY_DB_REUSE_MAX = 10**9
CELERY_TASK_DEFAULT_QUEUE = "bulk"
CELERY_TASK_ROUTES = {"recognition.tasks.answer_queries": {"queue": "live"}}
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Always look into the first queue first, so that live queries never wait behind bulk work.
    "queue_order_strategy": "priority",
    "visibility_timeout": 3600,
    "global_keyprefix": "shitu:",
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(SHITU_VAR_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = {
    "resume": {"task": "recognition.tasks.resume", "schedule": 15.0, "options": {"expires": 15}},
    "tend-indexes": {
        "task": "recognition.tasks.tend_indexes",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "measure-recall": {"task": "recognition.tasks.measure_recall", "schedule": 6 * 3600.0},
    "purge-queries": {"task": "recognition.tasks.purge_queries", "schedule": 3600.0},
    "purge-sessions": {"task": "recognition.tasks.purge_sessions", "schedule": 86_400.0},
    "purge-trash": {"task": "recognition.tasks.purge_trash", "schedule": 3600.0},
    "forget-job-files": {"task": "recognition.tasks.forget_job_files", "schedule": 86_400.0},
}

# --- Recognition ----------------------------------------------------------------------------------
# A PaddleX pipeline file decides what no variable does.
SHITU_PIPELINE_CONFIG = env.str("SHITU_PIPELINE_CONFIG", default="")
_pipeline = _pipeline_settings(SHITU_PIPELINE_CONFIG)
SHITU_DEVICE = env.str("SHITU_DEVICE", default=_pipeline.get("SHITU_DEVICE", "cpu"))
SHITU_DEVICES = env.str("SHITU_DEVICES", default="")
SHITU_ENGINE = env.str("SHITU_ENGINE", default=_pipeline.get("SHITU_ENGINE", "auto"))
SHITU_ENGINE_OPTIONS = _engine_options(_pipeline)
SHITU_THREADS = env.int("SHITU_THREADS", default=_pipeline.get("SHITU_THREADS", 0))
SHITU_DETECTOR = env.str("SHITU_DETECTOR", default="starter_det")
SHITU_FEATURE_MODEL = env.str("SHITU_FEATURE_MODEL", default="starter_rec")
SHITU_BATCH_SIZE = env.int("SHITU_BATCH_SIZE", default=_pipeline.get("SHITU_BATCH_SIZE", 16))
SHITU_LIVE_BATCH = env.int("SHITU_LIVE_BATCH", default=0)
SHITU_MAX_WAITING_QUERIES = env.int("SHITU_MAX_WAITING_QUERIES", default=1000)
SHITU_MAX_WAITING_IMAGES = env.int("SHITU_MAX_WAITING_IMAGES", default=0)
SHITU_LEASE_SECONDS = env.int("SHITU_LEASE_SECONDS", default=60)
SHITU_MAX_ATTEMPTS = env.int("SHITU_MAX_ATTEMPTS", default=3)
SHITU_INDEX_MEMORY_MB = env.int("SHITU_INDEX_MEMORY_MB", default=1024)
# Beside the process that builds: three of them on two processors are slower than two.
SHITU_INDEX_WORKERS = env.int("SHITU_INDEX_WORKERS", default=min(2, (os.cpu_count() or 1) - 1))
SHITU_WORKER_GONE_SECONDS = env.int("SHITU_WORKER_GONE_SECONDS", default=20)
SHITU_ANSWER_TIMEOUT = env.float("SHITU_ANSWER_TIMEOUT", default=30.0)
SHITU_KEEP_QUERIES_DAYS = env.int("SHITU_KEEP_QUERIES_DAYS", default=30)
SHITU_TRASH_DAYS = env.int("SHITU_TRASH_DAYS", default=30)
SHITU_INVITATION_DAYS = env.int("SHITU_INVITATION_DAYS", default=14)

# --- PaddleX's HTTP interface --------------------------------------------------------------------
SHITU_PADDLEX_ANONYMOUS_USER = env.str("SHITU_PADDLEX_ANONYMOUS_USER", default="")
SHITU_PADDLEX_DEFAULT_CATALOGUE = env.str("SHITU_PADDLEX_DEFAULT_CATALOGUE", default="")
SHITU_PADDLEX_ID_MAP_LIMIT = env.int("SHITU_PADDLEX_ID_MAP_LIMIT", default=10_000)
SHITU_PADDLEX_TIMEOUT = env.float("SHITU_PADDLEX_TIMEOUT", default=300.0)
SHITU_PADDLEX_STRICT_ERRORS = env.bool("SHITU_PADDLEX_STRICT_ERRORS", default=False)

# --- Quotas (0: unlimited); rows in the admin override them ---------------------------------------
SHITU_QUOTA_CATALOGUE_IMAGES = env.int("SHITU_QUOTA_CATALOGUE_IMAGES", default=0)
SHITU_QUOTA_CATALOGUE_BYTES = env.int("SHITU_QUOTA_CATALOGUE_BYTES", default=0)
SHITU_QUOTA_CATALOGUE_QUERIES_PER_MINUTE = env.int(
    "SHITU_QUOTA_CATALOGUE_QUERIES_PER_MINUTE", default=0
)
SHITU_QUOTA_USER_QUERIES_PER_MINUTE = env.int("SHITU_QUOTA_USER_QUERIES_PER_MINUTE", default=0)
SHITU_API_REQUESTS_PER_MINUTE = env.int("SHITU_API_REQUESTS_PER_MINUTE", default=0)
SHITU_QUOTA_CONCURRENT_JOBS = env.int("SHITU_QUOTA_CONCURRENT_JOBS", default=0)

# --- What is accepted -----------------------------------------------------------------------------
SHITU_MAX_IMAGE_BYTES = env.int("SHITU_MAX_IMAGE_BYTES", default=20 * 1024 * 1024)
SHITU_MAX_IMAGE_PIXELS = env.int("SHITU_MAX_IMAGE_PIXELS", default=50_000_000)
SHITU_MIN_IMAGE_SIDE = env.int("SHITU_MIN_IMAGE_SIDE", default=8)
SHITU_MAX_UPLOAD_FILES = env.int("SHITU_MAX_UPLOAD_FILES", default=100)
SHITU_MAX_UPLOAD_URLS = env.int("SHITU_MAX_UPLOAD_URLS", default=5000)
SHITU_FETCH_ALLOW = env.list("SHITU_FETCH_ALLOW", default=[])
SHITU_ACCEL_REDIRECT = env.str("SHITU_ACCEL_REDIRECT", default="")
SHITU_FETCH_TIMEOUT = env.float("SHITU_FETCH_TIMEOUT", default=15.0)
SHITU_MAX_IMPORT_BYTES = env.int("SHITU_MAX_IMPORT_BYTES", default=4 * 1024**3)
DATA_UPLOAD_MAX_MEMORY_SIZE = env.int("SHITU_MAX_BODY_BYTES", default=100 * 1024 * 1024)
DATA_UPLOAD_MAX_NUMBER_FILES = SHITU_MAX_UPLOAD_FILES

# --- Django ---------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "axes",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_filters",
    "django_htmx",
    "django_structlog",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "rest_framework",
    "recognition",
]
MIDDLEWARE = [
    "recognition.api.paddlex.identity.TokenInPath",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "recognition.api.body_limit.BodyLimitMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "recognition.middleware.ActorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "shitu_site.urls"
WSGI_APPLICATION = "shitu_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STORAGES = {
    "default": {"BACKEND": _MEDIA_STORAGES[SHITU_MEDIA_STORAGE]},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = DEBUG
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "recognition" / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "recognition.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_FILTER_BACKENDS": [
        "recognition.api.filters.Filters",
        "recognition.api.filters.Ordering",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["recognition.api.throttling.RequestsPerMinute"],
    "EXCEPTION_HANDLER": "recognition.api.errors.to_response",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Shitu product recognition",
    "DESCRIPTION": "Catalogues, products, gallery images and recognitions.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {
        "State": "recognition.models.State",
        "IndexState": "recognition.models.IndexState",
        "IndexType": "recognition.models.IndexType",
        "Metric": "recognition.models.Metric",
    },
}
# Our own token model takes the place of knox's, whose table nobody would use.
MIGRATION_MODULES = {"knox": None}
KNOX_TOKEN_MODEL = "recognition.ApiToken"  # noqa: S105
REST_KNOX = {"TOKEN_TTL": None, "AUTH_HEADER_PREFIX": "Bearer", "TOKEN_LIMIT_PER_USER": None}

UNFOLD = {
    "SITE_TITLE": _("Product recognition"),
    "SITE_HEADER": _("Product recognition"),
    "SITE_URL": "/",
    "SHOW_LANGUAGES": True,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("recognition/icon.svg")}
    ],
}

# --- Logs -----------------------------------------------------------------------------------------
SHITU_LOG_FORMAT = env.str("SHITU_LOG_FORMAT", default="console")
SHITU_LOG_LEVEL = env.str("SHITU_LOG_LEVEL", default="INFO")
DJANGO_STRUCTLOG_CELERY_ENABLED = True
LOGGING = logs.configure(SHITU_LOG_FORMAT, SHITU_LOG_LEVEL)
