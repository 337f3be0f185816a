"""Requests: the middlewares for ASGI and WSGI, and each block of docs/python.md as it stands."""

from __future__ import annotations

import asyncio
import io
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import fastapi
import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.routing import Route

import auditdb
from auditdb.integrations import asgi, wsgi
from auditdb.write.scope import current_claim
from tests.conftest import Database
from tests.connections import asyncpg_arguments

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text("utf-8")
BLOCKS = dict(
    zip(
        ["psycopg2", "asyncpg", "Celery", "FastAPI", "FastAPI in threads", "FastAPI, asyncpg",
         "Starlette", "Flask", "Flask, psycopg2", "WSGI"],
        re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE),
        strict=True,
    )
)  # fmt: skip
WEB = [name for name in BLOCKS if name not in ("psycopg2", "asyncpg", "Celery")]
ROUTES = {
    "Flask": "/members/<int:user_id>",
    "FastAPI": "/members/{user_id}",
    "Starlette": "/members/{user_id:int}",
}


def seen() -> Any:
    """Return what is in force, as it would be sent."""
    claim = current_claim()
    return None if claim is None else {
        name: value for name, value in claim.__dict__.items()
        if value is not None and name in ("actor_id", "source", "details")
    }  # fmt: skip


# The recipes


def url(dsn: str) -> str:
    """Return an address that each driver takes."""
    given = asyncpg_arguments(dsn)
    where = f"{given['host']}:{given['port']}/{given['database']}"
    return f"postgresql://{given['user']}:{given['password']}@{where}"


def signed_in(headers: Any) -> Any:
    return SimpleNamespace(id=headers["X-User"], organization_id=1)


def from_request(request: fastapi.Request) -> Any:
    return signed_in(request.headers)


def from_environ(environ: dict[str, Any]) -> Any:
    return signed_in({"X-User": environ["HTTP_X_USER"]})


def current_user(recipe: str) -> Callable[..., Any]:
    if recipe == "Starlette":
        return lambda scope: signed_in(HTTPConnection(scope).headers)
    return from_environ if recipe == "WSGI" else from_request


@asynccontextmanager
async def serving(recipe: str, dsn: str) -> AsyncIterator[Callable[..., Any]]:
    """Run a recipe, and yield what posts to its application."""
    known: dict[str, Any] = {"dsn": url(dsn), "current_user": current_user(recipe)}
    exec(BLOCKS[recipe], known)
    app, pool = known["app"], known.get("pool")
    address = "203.0.113.9"

    if isinstance(app, Starlette):  # FastAPI is one
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
        ):
            yield client.post
    else:

        def post(path: str, **given: Any) -> httpx.Response:
            transport = httpx.WSGITransport(app, remote_addr=address)
            with httpx.Client(transport=transport, base_url="http://shop") as client:
                return client.post(path, **given)

        async def post_in_thread(path: str, **given: Any) -> httpx.Response:
            return await asyncio.to_thread(post, path, **given)

        yield post_in_thread
    if pool is not None:
        for close in ("closeall", "close"):
            if hasattr(pool, close):
                closed = getattr(pool, close)()
                if hasattr(closed, "__await__"):
                    await closed
                break


@pytest.mark.parametrize("recipe", WEB)
def test_twenty_requests_at_a_time_are_each_under_their_own_context(
    db: Database, recipe: str
) -> None:
    async def main() -> None:
        async with serving(recipe, db.conninfo("app")) as post:

            async def promote(actor: int) -> None:
                headers = {
                    "X-User": str(actor),
                    "X-Request-ID": f"request-{actor}",
                    "User-Agent": "browser",
                    "X-Forwarded-For": "6.6.6.6",
                }
                path = f"/members/2?role=R{actor}"
                response = await post(path, headers=headers)
                assert response.status_code == 200, response.text

            # More at once than psycopg2's pool has: it does not wait.
            at_once = 5 if "psycopg2" in recipe else 20
            for start in range(100, 120, at_once):
                await asyncio.gather(*map(promote, range(start, start + at_once)))

    asyncio.run(main())
    events = db.events()
    assert len(events) == 40
    assert {event["action"] for event in events} == {"membership.role_changed", "report.exported"}
    route = ROUTES.get(recipe.partition(",")[0].partition(" ")[0])
    for event in events:
        actor = event["actor_id"]
        assert event["source"] == "web"
        assert {key: event["details"].get(key) for key in (
            "ip", "user_agent", "request_id", "method", "route"
        )} == {
            "ip": "203.0.113.9", "user_agent": "browser", "request_id": f"request-{actor}",
            "method": "POST", "route": route,
        }  # fmt: skip
        if event["action"] == "membership.role_changed":
            assert event["new_values"]["role"] == f"R{actor}"
    assert {event["actor_id"] for event in events} == {str(actor) for actor in range(100, 120)}


@pytest.mark.parametrize("recipe", WEB)
def test_a_request_that_fails_records_nothing(db: Database, recipe: str) -> None:
    db.connect("app_owner").execute("alter table membership add check (role <> 'NO')")

    async def main() -> None:
        async with serving(recipe, db.conninfo("app")) as post:
            if "Flask" in recipe:
                response = await post("/members/2?role=NO", headers={"X-User": "7"})
                assert response.status_code == 500
            else:
                with pytest.raises(Exception, match="violates check constraint"):
                    await post("/members/2?role=NO", headers={"X-User": "7"})
            response = await post("/members/2?role=YES", headers={"X-User": "8"})
            assert response.status_code == 200

    asyncio.run(main())
    assert [event["actor_id"] for event in db.events()] == ["8", "8"]


def test_the_blocks_on_drivers_record(db: Database) -> None:
    known: dict[str, Any] = {"dsn": url(db.conninfo("app"))}
    exec(BLOCKS["psycopg2"], known)
    known["conn"].close()
    db.connect().execute("update membership set role = 'MEMBER' where user_id = 2")
    exec(BLOCKS["asyncpg"], known)
    with pytest.raises(PermissionError):
        asyncio.run(known["promote"](known["dsn"]))
    events = [
        (event["action"], event["result"], event["source"]) for event in db.events("actor_id = '7'")
    ]
    assert events == [
        ("membership.role_changed", "success", "cli"), ("report.imported", "denied", "cli"),
    ]  # fmt: skip


# The middlewares


HEADERS = {"user-agent": "browser", "x-request-id": "r", "x-forwarded-for": "6.6.6.6, 192.0.2.1"}


def saw(kind: str, headers: dict[str, str], method: str = "GET", **options: Any) -> Any:
    """Return what an application beneath a middleware sees in force."""
    said: list[Any] = []

    async def asgi_app(*_: Any) -> None:
        said.append(seen())

    def wsgi_app(*_: Any) -> list[bytes]:
        said.append(seen())
        return []

    if kind == "asgi":
        scope = {
            "type": "http", "method": method, "client": ("10.0.0.1", 1),
            "headers": [(name.encode(), text.encode("latin-1")) for name, text in headers.items()],
        }  # fmt: skip
        asyncio.run(_call(asgi.AuditMiddleware(asgi_app, **options), scope))
    else:
        environ = {
            "REQUEST_METHOD": method, "REMOTE_ADDR": "10.0.0.1",
            **{"HTTP_" + name.upper().replace("-", "_"): text for name, text in headers.items()},
        }  # fmt: skip
        wsgi.AuditMiddleware(wsgi_app, **options)(environ, lambda *_: None)
    assert seen() is None
    return said[0]


async def _call(app: Any, scope: dict[str, Any]) -> None:
    async def nothing(*_: Any) -> None:
        pass

    await app(scope, nothing, nothing)


kinds = pytest.mark.parametrize("kind", ["asgi", "wsgi"])


@kinds
@pytest.mark.parametrize(
    ("proxies", "ip"), [(0, "10.0.0.1"), (1, "192.0.2.1"), (2, "6.6.6.6"), (3, "6.6.6.6")]
)
def test_only_proxies_of_ones_own_are_believed(kind: str, proxies: int, ip: str) -> None:
    assert saw(kind, HEADERS, proxies=proxies) == {
        "source": "web",
        "details": {"ip": ip, "user_agent": "browser", "request_id": "r", "method": "GET"},
    }
    assert saw(kind, {}, proxies=proxies)["details"]["ip"] == "10.0.0.1"


@kinds
def test_the_application_says_more_and_leaves_out(kind: str) -> None:
    said = saw(
        kind,
        HEADERS,
        get_context=lambda _: {
            "actor_id": 7, "source": "api", "details": {"tenant": "t", "user_agent": None},
        },
    )  # fmt: skip
    assert (said["actor_id"], said["source"]) == ("7", "api")
    assert said["details"] == {
        "ip": "10.0.0.1", "request_id": "r", "method": "GET", "tenant": "t",
    }  # fmt: skip
    assert saw(kind, HEADERS, get_context=lambda _: None)["source"] == "web"


@kinds
def test_what_get_context_misspells_is_refused(kind: str) -> None:
    with pytest.raises(TypeError, match=r"get_context.* Did you mean 'actor_id'"):
        saw(kind, HEADERS, get_context=lambda _: {"user": 7})
    with pytest.raises(TypeError, match="get_context returned a int; return a mapping"):
        saw(kind, HEADERS, get_context=lambda _: 7)


@kinds
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"proxies": "1"}, "proxies is '1'; give the number of your own proxies"),
        ({"proxies": -1}, "proxies is -1; give the number"),
        ({"proxies": True}, "proxies is True; give the number"),
        ({"get_context": {"actor_id": 7}}, "get_context is {'actor_id': 7}; give a function"),
    ],
)
def test_what_a_middleware_cannot_use_is_refused_before_the_first_request(
    kind: str, given: dict[str, Any], said: str
) -> None:
    middleware: Any = {"asgi": asgi, "wsgi": wsgi}[kind].AuditMiddleware
    with pytest.raises(TypeError, match=re.escape(said)):
        middleware(None, **given)


def test_to_say_more_where_no_context_is_in_force_names_the_middleware() -> None:
    with pytest.raises(LookupError, match="has the AuditMiddleware of auditdb"):
        auditdb.update_context(actor_id=7)


@kinds
def test_what_a_client_sends_never_makes_the_action_fail(kind: str, db: Database) -> None:
    long = {
        "user-agent": "\0\n\xff" * 9999,
        "x-request-id": "x" * 9999,
        "x-forwarded-for": "'" * 999,
    }
    said = saw(kind, long, method="G" * 9999, proxies=1)
    assert said["details"] == {
        "ip": "'" * 100, "user_agent": "??\xff" * 100, "request_id": "x" * 200, "method": "G" * 50,
    }  # fmt: skip
    conn = db.connect("app")
    with auditdb.context(**said), auditdb.context(conn):
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        auditdb.record(conn, "report.exported")
    assert [event["details"]["request_id"] for event in db.events()] == ["x" * 200] * 2


def test_websockets_have_a_context_and_the_lifespan_has_none() -> None:
    said = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        said.append((scope["type"], seen()))

    middleware = asgi.AuditMiddleware(app)
    asyncio.run(_call(middleware, {"type": "lifespan"}))
    asyncio.run(_call(middleware, {"type": "websocket", "client": None, "headers": []}))
    assert said == [("lifespan", None), ("websocket", {"source": "web", "details": {}})]


def get(app: Any, path: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("203.0.113.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.get(path)

    return asyncio.run(main())


def test_what_is_said_in_a_thread_reaches_the_whole_request() -> None:
    app = fastapi.FastAPI()
    said = []

    def authenticate() -> None:
        auditdb.update_context(actor_id=7)

    @app.get("/in-thread/{number}", dependencies=[fastapi.Depends(authenticate)])
    def in_thread(number: int, later: fastapi.BackgroundTasks) -> None:
        said.append(seen())
        later.add_task(lambda: said.append(seen()))

    @app.get("/in-task", dependencies=[fastapi.Depends(authenticate)])
    async def in_task() -> None:
        said.append(await asyncio.create_task(asyncio.to_thread(seen)))

    async def passes(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        said.append(seen())
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=passes)
    app.add_middleware(asgi.AuditMiddleware)
    assert get(app, "/in-thread/5").status_code == 200
    assert get(app, "/in-task").status_code == 200
    assert [each["actor_id"] for each in said] == ["7"] * 5
    routes = {each["details"]["route"] for each in said}
    assert routes == {"/in-thread/{number}", "/in-task"}


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_stream_is_sent_under_the_context_of_its_request(how: str) -> None:
    def parts() -> Iterator[str]:
        for _ in range(3):
            yield seen()["actor_id"]

    async def parts_async() -> AsyncIterator[str]:
        for part in parts():
            yield part

    async def stream(_: Any) -> StreamingResponse:
        return StreamingResponse(parts() if how == "sync" else parts_async())

    app = Starlette(routes=[Route("/", stream)])
    app.add_middleware(asgi.AuditMiddleware, get_context=lambda _: {"actor_id": 7})
    assert get(app, "/").text == "777"
    assert seen() is None


def serve(app: Any) -> Iterator[bytes]:
    """Serve a request as a strict server of WSGI does; between the parts nothing is in force."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ["QUERY_STRING"] = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = validator(app)(environ, lambda *_: lambda _: None)
    try:
        for part in body:
            assert seen() is None
            yield part
    finally:
        body.close()  # type: ignore[attr-defined]


def test_a_stream_of_wsgi_is_made_and_closed_under_the_context_of_its_request() -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(3):
                yield seen()["actor_id"].encode()

        def close(self) -> None:
            closed.append(seen()["actor_id"])

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    middleware = wsgi.AuditMiddleware(app, lambda _: {"actor_id": 7})
    # Two at a time, as a server of one thread may.
    first, second = serve(middleware), serve(middleware)
    assert [part for both in zip(first, second, strict=False) for part in both] == [b"7"] * 6
    assert list(first) == list(second) == []
    assert closed == ["7", "7"] and seen() is None


def test_a_stream_of_wsgi_goes_on_within_the_contexts_that_it_opens() -> None:
    def stream() -> Iterator[bytes]:
        with auditdb.context(actor_id=8):
            for _ in range(2):
                yield str(seen()["actor_id"]).encode()
        yield str(seen()["actor_id"]).encode()

    app = wsgi.AuditMiddleware(lambda *_: stream(), lambda _: {"actor_id": 7})
    with auditdb.context(actor_id=9):
        for _, part in zip(range(3), app({}, lambda *_: None), strict=True):
            assert part == (b"7" if _ == 2 else b"8")
            assert seen()["actor_id"] == "9"


def test_a_request_that_waits_behind_another_on_its_connection_inherits_nothing() -> None:
    said = {}
    waiting: list[asyncio.Task[None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/mine":
            auditdb.update_context(actor_id=7)
        said[scope["path"]] = seen()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        assert seen() == said[scope["path"]]

    middleware = asgi.AuditMiddleware(app)

    def request(path: str) -> dict[str, Any]:
        return {"type": "http", "path": path, "client": None, "headers": []}

    async def receive() -> None:
        pass

    async def send(message: Any) -> None:
        # As uvicorn does with requests that are pipelined.
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        if is_last and not waiting:
            waiting.append(asyncio.create_task(middleware(request("/other"), receive, send)))

    async def main() -> None:
        await middleware(request("/mine"), receive, send)
        await waiting[0]

    asyncio.run(main())
    assert said["/mine"]["actor_id"] == "7"
    assert said["/other"] == {"source": "web", "details": {}}


def test_lists_and_files_of_wsgi_reach_the_server_as_they_are() -> None:
    file = FileWrapper(io.BytesIO(b"x"))
    for body in ([b"x"], (b"x",), file):
        middleware = wsgi.AuditMiddleware(lambda *_, body=body: body)
        assert middleware({"wsgi.file_wrapper": FileWrapper}, lambda *_: None) is body


def test_an_error_ends_the_context_of_its_request() -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wsgi.AuditMiddleware(fails)({}, lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_call(asgi.AuditMiddleware(fails), {"type": "http"}))
    assert seen() is None


def test_flask_says_its_route_from_within() -> None:
    app = flask.Flask("shop")
    said = []

    @app.get("/a/<int:number>")
    def view(number: int) -> flask.Response:
        auditdb.update_context(actor_id=number)
        said.append(seen())
        return flask.Response(flask.stream_with_context(seen()["actor_id"] for _ in range(2)))

    app.wsgi_app = wsgi.AuditMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    assert app.test_client().get("/a/7").text == "77"
    assert (said[0]["actor_id"], said[0]["details"]["route"]) == ("7", "/a/<int:number>")
