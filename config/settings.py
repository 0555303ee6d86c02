"""Every setting of the site.

With no environment variable set this is the embedded mode: one folder, SQLite, a broker and
live updates that need no server. `PREFLOOP_DATABASE_URL` and `PREFLOOP_REDIS_URL` make it production.
"""

from pathlib import Path

import dj_database_url
from csp.constants import NONCE, NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from config import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = Path(env.text("PREFLOOP_HOME", str(BASE_DIR / "var"))).resolve()
try:
    HOME.mkdir(parents=True, exist_ok=True)
except OSError as error:
    raise ImproperlyConfigured(f"PREFLOOP_HOME={HOME} cannot be used: {error}") from error

VERSION = "0.1.0"
DEBUG = env.flag("PREFLOOP_DEBUG")
SECRET_KEY = env.secret("PREFLOOP_SECRET_KEY", HOME / "keys" / "secret_key")
PSEUDONYM_KEY = env.secret("PREFLOOP_PSEUDONYM_KEY", HOME / "keys" / "pseudonym_key")
ALLOWED_HOSTS = env.words("PREFLOOP_ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
HTTPS = env.flag("PREFLOOP_HTTPS")
CSRF_TRUSTED_ORIGINS = env.words("PREFLOOP_TRUSTED_ORIGINS", [])
# Where browsers reach the `live` process. Empty: same host, this port (the proxy joins the two in production).
LIVE_PORT = env.number("PREFLOOP_LIVE_PORT", 0, low=0, high=65535)
METRICS_TOKEN = env.text("PREFLOOP_METRICS_TOKEN")  # what Prometheus sends to /metrics; empty: staff only
TRUSTED_PROXIES = env.number("PREFLOOP_TRUSTED_PROXIES", 0, low=0, high=8)

INSTALLED_APPS = [
    "labeling.web",
    "labeling.live",
    "unfold.apps.BasicAppConfig",
    "labeling.web.admin_apps.OperatorsConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "axes",
    "csp",
    "labeling.accounts",
    "labeling.projects",
    "labeling.images",
    "labeling.annotation",
    "labeling.conversation",
    "labeling.quality",
    "labeling.imports",
    "labeling.preferences",
    "labeling.webhooks",
    "training.registry",
    "training.endpoints",
    "training.runs",
    "training.features",
    "training.loop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "labeling.web.middleware.security_headers",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "labeling.accounts.middleware.language_of_the_person",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "labeling.web.context.site",
            ],
        },
    }
]

# --- data ---------------------------------------------------------------------------------------
DATABASE_URL = env.text("PREFLOOP_DATABASE_URL", f"sqlite:///{HOME / 'prefloop.sqlite3'}")
try:
    DATABASES = {
        "default": dj_database_url.parse(
            DATABASE_URL, conn_max_age=600, conn_health_checks=True,
            disable_server_side_cursors=env.flag("PREFLOOP_DATABASE_POOLED"),
        )
    }  # fmt: skip
except (ValueError, KeyError) as error:
    raise ImproperlyConfigured(f"PREFLOOP_DATABASE_URL is not a database address: {error}") from error
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["ENGINE"] = "labeling.database.sqlite"
    DATABASES["default"]["OPTIONS"] = {
        # Writers queue for the lock instead of failing half way; FULL: what was acknowledged survives a power cut.
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
            "PRAGMA cache_size=-16000; PRAGMA temp_store=MEMORY;"
        ),
    }
    # Tests use a file too: threads and processes of a test share it, which memory would not allow.
    DATABASES["default"]["TEST"] = {"NAME": str(HOME / "test.sqlite3")}
elif DATABASES["default"]["ENGINE"].endswith("postgresql"):
    DATABASES["default"]["ENGINE"] = "labeling.database.postgresql"
    # Statements here are many and small: compiling one takes longer than running it.
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("options", "-c jit=off")
else:
    raise ImproperlyConfigured("PREFLOOP_DATABASE_URL names neither SQLite nor PostgreSQL")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

FILES = HOME / "files"  # snapshots, images, imports
RUNS = HOME / "runs"  # one folder a training run
MODELS = HOME / "models"  # weights, safetensors only

REDIS_URL = env.text("PREFLOOP_REDIS_URL")
if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
    CELERY_BROKER_URL = REDIS_URL
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600}
else:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": str(HOME / "cache"),
        }
    }
    _queue = HOME / "queue"
    for _folder in ("messages", "processed", "control"):
        (_queue / _folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_URL = "filesystem://"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_queue / "messages"),
        "data_folder_out": str(_queue / "messages"),
        "processed_folder": str(_queue / "processed"),
        "control_folder": str(_queue / "control"),
    }

# The database row and the sweeper, not the message, are the truth: no results, no late acknowledgement.
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"training.runs.tasks.execute_runs": {"queue": "gpu"}}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(HOME / "queue" / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "free expired leases": {"task": "labeling.annotation.tasks.free_expired_leases", "schedule": 10.0},
    "find disagreements": {"task": "labeling.quality.tasks.refresh_disagreements", "schedule": 20.0},
    "start lost freezes again": {"task": "labeling.preferences.tasks.sweep_freezes", "schedule": 10.0},
    "start lost imports of models again": {"task": "training.registry.tasks.sweep_model_imports", "schedule": 10.0},
    "hand on lost runs": {"task": "training.runs.tasks.sweep_runs", "schedule": 10.0},
    "count the room of runs": {"task": "training.runs.tasks.measure_runs", "schedule": 60.0},
    "delete old checkpoints": {"task": "training.runs.tasks.clean_runs", "schedule": 3600.0},
    "encode what arrived": {"task": "training.features.tasks.sweep_features", "schedule": 10.0},
    "reconcile features": {"task": "training.features.tasks.reconcile_features", "schedule": 3600.0},
    "advance iterations": {"task": "training.loop.tasks.advance_iterations", "schedule": 5.0},
    "compute quality reports": {"task": "labeling.quality.tasks.compute_due_reports", "schedule": 30.0},
    "send webhooks": {"task": "labeling.webhooks.tasks.send_messages", "schedule": 5.0},
    "forget old deliveries": {"task": "labeling.webhooks.tasks.forget_old_deliveries", "schedule": 3600.0},
    "hand on lost imports": {"task": "labeling.imports.tasks.sweep_imports", "schedule": 10.0},
    "remove imported files": {"task": "labeling.imports.tasks.remove_old_files", "schedule": 3600.0},
    "forget old events": {"task": "labeling.live.tasks.forget_old_events", "schedule": 3600.0},
}

# --- imports ------------------------------------------------------------------------------------
IMPORT_MAX_BYTES = env.number("PREFLOOP_IMPORT_MAX_BYTES", 2_000_000_000, low=1000, high=2**40)
IMPORT_KEEP_DAYS = env.number("PREFLOOP_IMPORT_KEEP_DAYS", 7, low=0, high=3650)  # files, once their import is over
IMPORT_HEARTBEAT_SECONDS = 5
IMPORT_LOST_AFTER_SECONDS = 60
IMPORT_MAX_ATTEMPTS = 3

# --- training -----------------------------------------------------------------------------------
RUN_HEARTBEAT_SECONDS = 5
RUN_LOST_AFTER_SECONDS = 30
RUN_MAX_ATTEMPTS = 3
# Bytes that the runs of one project may take, and that stay free where runs lie; 0: no bound.
RUN_DISK_QUOTA_GB = env.number("PREFLOOP_RUN_DISK_QUOTA_GB", 0, low=0, high=10**6)
RUN_DISK_FREE_GB = env.number("PREFLOOP_RUN_DISK_FREE_GB", 1, low=0, high=10**6)
RUN_CHECKPOINT_DAYS = env.number("PREFLOOP_RUN_CHECKPOINT_DAYS", 14, low=0, high=3650)  # of failed and cancelled runs
# Python functions of the team that runs may take rewards from, by exact dotted name: they run in the worker's recipes.
REWARD_FUNCTIONS = env.words("PREFLOOP_REWARD_FUNCTIONS", [])
# Launchers beside ours: a folder of configurations of accelerate, NAME.yaml each.
ACCELERATE_CONFIGS = env.text("PREFLOOP_ACCELERATE_CONFIGS")
# Runs that are spread over several machines with one PREFLOOP_HOME: how many, which this is, and where the first listens.
TRAIN_NODES = env.number("PREFLOOP_TRAIN_NODES", 1, low=1, high=256)
TRAIN_NODE_RANK = env.number("PREFLOOP_TRAIN_NODE_RANK", 0, low=0, high=TRAIN_NODES - 1)
TRAIN_RENDEZVOUS = env.address("PREFLOOP_TRAIN_RENDEZVOUS", is_needed=TRAIN_NODES > 1)
TORCH_THREADS = env.number("PREFLOOP_TORCH_THREADS", 0, low=0, high=512)  # 0: all cores
# What an hour of a machine that executes runs costs, for estimates; 0: no price is told.
PRICE_AN_HOUR = env.amount("PREFLOOP_PRICE_AN_HOUR", 0.0, low=0.0, high=1_000_000.0)
CURRENCY = env.text("PREFLOOP_CURRENCY", "EUR")[:3]
# Folders that models may be imported from; a file elsewhere is never read for it.
MODEL_ROOTS = env.words("PREFLOOP_MODEL_ROOTS", [str(HOME / "incoming")])
# The largest archive of a model that is taken from a browser or over REST, and the most that may come out of it.
MODEL_UPLOAD_MAX_BYTES = env.number("PREFLOOP_MODEL_UPLOAD_MAX_BYTES", 4_000_000_000, low=1000, high=2**40)

# --- models to talk with ------------------------------------------------------------------------
# Servers of the OpenAI protocol, by name: {"vllm": {"url": "http://gpu1:8000/v1", "api_key_env": "VLLM_KEY"}}.
# Only the operator names addresses. `local` is the process `model` of `up`, which listens on the loopback alone.
MODEL_SERVER_KEY = env.secret("PREFLOOP_MODEL_SERVER_KEY", HOME / "keys" / "model_server_key")
MODEL_PORT = env.number("PREFLOOP_MODEL_PORT", 0, low=0, high=65535)
MODEL_SERVERS = env.model_servers("PREFLOOP_MODEL_SERVERS", local_port=MODEL_PORT, local_key=MODEL_SERVER_KEY)
MODEL_FIRST_TOKEN_SECONDS = env.number("PREFLOOP_MODEL_FIRST_TOKEN_SECONDS", 60, low=1, high=3600)
MODEL_NEXT_TOKEN_SECONDS = env.number("PREFLOOP_MODEL_NEXT_TOKEN_SECONDS", 20, low=1, high=3600)

# --- webhooks -----------------------------------------------------------------------------------
# Hosts that may be sent to wherever they are, and by http too: "ci.internal" or "ci.internal:8080". Others only by https,
# and only where all their addresses are public; with PREFLOOP_WEBHOOK_PUBLIC=0 no others.
WEBHOOK_HOSTS = env.words("PREFLOOP_WEBHOOK_HOSTS", [])
WEBHOOK_PUBLIC = env.flag("PREFLOOP_WEBHOOK_PUBLIC", True)

# --- endpoints to sample from -------------------------------------------------------------------
# As for webhooks: hosts that may be asked wherever they are, and by http too: "gpu1:8000". Others only by https, and only
# where all their addresses are public; with PREFLOOP_ENDPOINT_PUBLIC=0 no others.
ENDPOINT_HOSTS = env.words("PREFLOOP_ENDPOINT_HOSTS", [])
ENDPOINT_PUBLIC = env.flag("PREFLOOP_ENDPOINT_PUBLIC", True)
# Checks that parts above the site's shell add to `doctor`: dotted names of functions that yield findings.
DOCTOR_CHECKS = [
    "training.endpoints.doctor.examine_endpoints", "training.runs.doctor.examine_launchers",
    "training.runs.doctor.examine_machines",
]  # fmt: skip

# --- people -------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "accounts:login"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False
AXES_LOCKOUT_TEMPLATE = "accounts/locked_out.html"
AXES_IPWARE_PROXY_COUNT = TRUSTED_PROXIES or None
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "labeling.web.views.csrf_failure"

# --- headers ------------------------------------------------------------------------------------
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 60 * 60 * 24 * 365
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        # Sockets of the `live` process: another port of the same host in embedded mode.
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "object-src": [NONE],
        "frame-ancestors": [NONE],
    }
}

# --- REST ---------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["labeling.accounts.authentication.BearerTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "labeling.web.api.CursorPages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "labeling.web.api.handle_exception",
    "PAGE_SIZE": 100,
    "DEFAULT_THROTTLE_RATES": {"token": "20/min"},
    "NUM_PROXIES": TRUSTED_PROXIES,
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "ENUM_NAME_OVERRIDES": {
        "ProjectStateEnum": "labeling.projects.models.Project.State",
        "MembershipStateEnum": "labeling.projects.models.Membership.State",
        "AdjudicationOutcomeEnum": "labeling.quality.models.Adjudication.Outcome",
        "TaskStateEnum": "labeling.annotation.models.Task.State",
        "ImportStateEnum": "labeling.imports.serializers.STATES",
        "FreezeStateEnum": "labeling.preferences.models.Freeze.State",
        "WebhookStateEnum": "labeling.webhooks.models.Webhook.State",
        "DeliveryStateEnum": "labeling.webhooks.models.Delivery.State",
    },
    "TITLE": "Prefloop",
    "DESCRIPTION": "Preference data and training runs of one Prefloop installation.",
    "VERSION": "1",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500

# --- the rest -----------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
STATIC_ROOT.mkdir(exist_ok=True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": FILES}},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "labeling.web.staticfiles.HashedFiles"
    },
}
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "labeling" / "web" / "locale"]
USE_I18N = True
TIME_ZONE = "UTC"
USE_TZ = True
UNFOLD = {
    "SITE_TITLE": "Prefloop",
    "SITE_HEADER": "Prefloop",
    "SITE_SYMBOL": "all_inclusive",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("web/icon.svg")}],
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "filters": {"away": {"()": "labeling.database.away.InOneLine"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["away"]}},
    "root": {"handlers": ["console"], "level": env.text("PREFLOOP_LOG_LEVEL", "WARNING")},
}
