"""Addresses of the project."""

from __future__ import annotations

from django.urls import include, path

from tests.integrations.django_project.shop import views

urlpatterns = [
    path("rename/<int:pk>/", views.rename),
    path("rename-async/<int:pk>/", views.rename_async),
    path("rename-get/<int:pk>/", views.rename_get),
    path("fail/<int:pk>/", views.fail),
    path("stream/<int:pk>/", views.stream),
    path("stream-async/<int:pk>/", views.stream_async),
    path("api/rename/<int:pk>/", views.rename_by_api),
    path("login/", views.sign_in),
    path("logout/", views.sign_out),
    path("refuse/<int:pk>/", views.refuse),
    path("hijack/", include("hijack.urls")),
]
