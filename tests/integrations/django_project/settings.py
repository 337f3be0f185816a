"""Settings of the project; what a test varies comes from `DJANGO_TEST`, as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

given: dict[str, Any] = json.loads(os.environ.get("DJANGO_TEST", "{}"))

SECRET_KEY = "not secret"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.integrations.django_project.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.postgresql", **given.get("database", {})},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "rest_framework",
    "rest_framework.authtoken",
    "hijack",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "auditdb.integrations.django",
    "tests.integrations.django_project.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "hijack.middleware.HijackUserMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "auditdb.integrations.django.middleware.AuditMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
HIJACK_INSERT_BEFORE = None
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "/"
AUDITDB: dict[str, Any] = given.get("auditdb", {})
