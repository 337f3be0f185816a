"""Views that write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import authenticate, login, logout
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, StreamingHttpResponse
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.decorators import api_view, authentication_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response

import auditdb
from auditdb.integrations.django import attempt
from tests.integrations.django_project.shop.models import Workflow


def _rename(pk: int, name: str) -> None:
    workflow = Workflow.objects.get(pk=pk)
    workflow.name = name
    workflow.save()


def rename(request: Any, pk: int) -> HttpResponse:
    """Rename one, and never look at the user."""
    _rename(pk, request.POST["name"])
    return HttpResponse("done")


def rename_get(request: Any, pk: int) -> HttpResponse:
    """Rename one, in a request that should only read."""
    if "look" in request.GET:
        bool(request.user.is_authenticated)
    _rename(pk, request.GET["name"])
    return HttpResponse("done")


async def rename_async(request: Any, pk: int) -> HttpResponse:
    """Rename one, asynchronously."""
    workflow = await Workflow.objects.aget(pk=pk)
    await asyncio.sleep(0.01)
    workflow.name = request.POST["name"]
    await workflow.asave()
    return HttpResponse("done")


def fail(request: Any, pk: int) -> HttpResponse:
    """Rename one, and fail."""
    _rename(pk, request.POST["name"])
    raise RuntimeError("failed")


def stream(request: Any, pk: int) -> StreamingHttpResponse:
    """Rename one while the body is made."""
    bool(request.user.is_authenticated)

    def parts() -> Iterator[bytes]:
        with auditdb.context(source="stream"):
            yield b"one"
            _rename(pk, request.GET["name"])
            yield b"two"

    return StreamingHttpResponse(parts())


async def stream_async(request: Any, pk: int) -> StreamingHttpResponse:
    """Rename one while the body is made, asynchronously."""
    if hasattr(request, "auser"):
        await request.auser()
    else:  # Django 4.2
        await sync_to_async(bool)(request.user)

    async def parts() -> AsyncIterator[bytes]:
        with auditdb.context(source="stream"):
            yield b"one"
            await Workflow.objects.filter(pk=pk).aupdate(name=request.GET["name"])
            yield b"two"

    return StreamingHttpResponse(parts())


@api_view(["POST"])
@authentication_classes([TokenAuthentication, SessionAuthentication])
def rename_by_api(request: Any, pk: int) -> Response:
    """Rename one, as the user of a token."""
    assert IsAuthenticated().has_permission(request, None)
    _rename(pk, request.POST["name"])
    return Response("done")


def sign_in(request: Any) -> HttpResponse:
    """Sign in."""
    user = authenticate(
        request, username=request.POST["username"], password=request.POST["password"]
    )
    if user is None:
        return HttpResponse("wrong", status=403)
    login(request, user)
    _rename(1, "after sign-in")
    return HttpResponse("done")


def sign_out(request: Any) -> HttpResponse:
    """Sign out."""
    logout(request)
    return HttpResponse("done")


def refuse(request: Any, pk: int) -> HttpResponse:
    """Refuse to delete one."""
    with attempt("workflow.deleted", organization_id=1, target_type="workflow", target_id=pk):
        Workflow.objects.filter(pk=pk).delete()
        raise PermissionDenied("only owners delete")
