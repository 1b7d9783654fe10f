"""`serve MODEL`: a classifier as an HTTP service, with a page for the browser."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np

from jaxfer.cli.service import BusyError, Service
from jaxfer.data.photos import square
from jaxfer.estimator import FewShotClassifier

try:
    # An optional dependency.
    from aiohttp import web
except ImportError as e:
    raise ValueError(
        f"expected aiohttp to serve, got an import error ({e}): pip install "
        "'jaxfer[serve]'"
    ) from e

# Pillow runs no other program to read these formats.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Limits of a request.
BODY_BYTES = 64 * 2**20
PICTURES = 64
PIXELS = 50_000_000
LABEL_LENGTH = 100
SECONDS = 30.0

_SERVICE = web.AppKey("service", Service)
_READ_ONLY = web.AppKey("read_only", bool)
_NAMES = web.AppKey("names", frozenset)
_DECODING = web.AppKey("decoding", asyncio.Semaphore)
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src blob:; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def run(
    model: Path,
    host: str,
    port: int,
    to: Path | None,
    read_only: bool,
    name: str | None,
) -> None:
    """Serve a classifier until SIGINT or SIGTERM."""
    if to is not None and to.exists() and to.resolve() != model.resolve():
        raise ValueError(
            f"expected a new file for --to, got {to}, which exists: serve {to} itself "
            "to keep its classes"
        )
    if not 0 <= port <= 65_535:
        raise ValueError(f"expected a port from 0 to 65535, got {port}")
    service = Service(FewShotClassifier.load(model), to)
    try:
        listener = socket.create_server((host, port))
    except OSError as e:
        raise ValueError(
            f"expected a free port and an IPv4 address, got {host}:{port} ({e})"
        ) from e
    port = listener.getsockname()[1]
    print(
        f"{model}: {len(service.counts)} classes at http://{host}:{port}\n"
        "Press Ctrl-C to stop.",
        flush=True,
    )
    names = [socket.gethostname(), host, *([name] if name else [])]
    app = make_app(service, read_only=read_only, names=names)
    web.run_app(app, sock=listener, print=None, handle_signals=True)


def make_app(
    service: Service, *, read_only: bool = False, names: Sequence[str] = ()
) -> web.Application:
    """The routes of a service.

    Args:
        service: what answers.
        read_only: whether to refuse changes of the classes.
        names: host names of the service, besides localhost and addresses.
    """
    app = web.Application(client_max_size=BODY_BYTES, middlewares=[_clean])
    app[_SERVICE], app[_READ_ONLY] = service, read_only
    app[_NAMES] = frozenset({"localhost", *(name.lower() for name in names)})
    app[_DECODING] = asyncio.Semaphore(2)
    app.cleanup_ctx.append(service.running)
    app.router.add_get("/", _page)
    app.router.add_get("/health", _health)
    app.router.add_get("/classes", _classes)
    app.router.add_post("/predict", _predict)
    app.router.add_post("/classes", _refused if read_only else _add)
    app.router.add_delete("/classes/{label:.+}", _refused if read_only else _remove)
    return app


async def _page(request: web.Request) -> web.Response:
    del request
    text = resources.files("jaxfer.cli").joinpath("serve.html").read_text("utf-8")
    return web.Response(text=text, content_type="text/html", headers=_HEADERS)


async def _health(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    return web.json_response({"status": "ok", "waiting": service.waiting})


async def _classes(request: web.Request) -> web.Response:
    counts = request.app[_SERVICE].counts
    rows = [{"label": label, "examples": int(n)} for label, n in counts.items()]
    answer = {"classes": rows, "read_only": request.app[_READ_ONLY]}
    return web.json_response(answer)


async def _predict(request: web.Request) -> web.Response:
    _, pictures, names = await _form(request)
    rows = await _in_time(request.app[_SERVICE].predict(pictures, names))
    return web.json_response({"predictions": rows})


async def _add(request: web.Request) -> web.Response:
    label, pictures, _ = await _form(request)
    if not (label.isprintable() and 0 < len(label.strip()) <= LABEL_LENGTH):
        raise ValueError(
            f"expected a label of 1 to {LABEL_LENGTH} printable characters, got "
            f"{label[:LABEL_LENGTH]!r}"
        )
    await _in_time(request.app[_SERVICE].add(label.strip(), pictures))
    return await _classes(request)


async def _remove(request: web.Request) -> web.Response:
    service, label = request.app[_SERVICE], request.match_info["label"]
    if label not in service.counts:
        raise web.HTTPNotFound(text=f"expected a known class, got {label!r}")
    await _in_time(service.remove(label))
    return await _classes(request)


async def _refused(request: web.Request) -> web.Response:
    del request
    raise web.HTTPForbidden(
        text="the service is read-only: restart it without --read-only to change "
        "classes"
    )


async def _form(request: web.Request) -> tuple[str, np.ndarray, list[str]]:
    """The label, the pictures and their file names in a form."""
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(
            text=f"expected multipart/form-data, got {request.content_type}"
        )
    try:
        async with asyncio.timeout(SECONDS):
            form = await request.post()
    except TimeoutError as e:
        raise web.HTTPRequestTimeout(
            text=f"expected the whole form within {SECONDS:.0f} s"
        ) from e
    except (LookupError, RuntimeError) as e:
        raise ValueError(
            f"expected multipart/form-data, got a damaged form: {e}"
        ) from e
    label = form.get("label", "")
    if not isinstance(label, str):
        raise ValueError("expected 'label' as text, got a file")
    files = [x for x in form.getall("picture", []) if isinstance(x, web.FileField)]
    if not 0 < len(files) <= PICTURES:
        raise ValueError(
            f"expected 1 to {PICTURES} files as 'picture', got {len(files)}"
        )
    service = request.app[_SERVICE]
    service.check_room(len(files))

    async def pictures() -> list[np.ndarray]:
        # A large picture takes much memory while it is decoded.
        async with request.app[_DECODING]:
            return [
                await asyncio.to_thread(decoded, file.file, service.side, file.filename)
                for file in files
            ]

    found = await _in_time(pictures())
    return label, np.stack(found), [file.filename for file in files]


def decoded(file: IO[bytes], side: int, name: str) -> np.ndarray:
    """A picture as uint8 `[side, side, 3]`.

    Args:
        file: an open file in one of `FORMATS`.
        side: side in pixels.
        name: the name of the file, for messages.

    Raises:
        ValueError: another format, a damaged file, or too many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > PIXELS:
                raise ValueError(
                    f"expected at most {PIXELS:,} pixels, got {width} x {height}"
                )
            return square(picture, side)
    except UnidentifiedImageError as e:
        raise ValueError(f"expected a {', '.join(FORMATS)} file, got {name!r}") from e
    except Exception as e:
        raise ValueError(f"{name!r} cannot be decoded: {e}") from e


async def _in_time(answer: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SECONDS):
        return await answer


@web.middleware
async def _clean(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Answer every error as JSON, and refuse requests by pages of other sites."""
    try:
        if not _known_host(request):
            raise web.HTTPForbidden(
                text=f"expected a host name of this service, got {request.host}: --name"
            )
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(
                text=f"expected a request of this service's page, got Origin {origin}"
            )
        return await handler(request)
    except web.HTTPException as e:
        return _json_error(e.status, e.text or e.reason)
    except ValueError as e:
        return _json_error(400, str(e))
    except BusyError as e:
        return _json_error(503, str(e))
    except TimeoutError:
        late = f"no answer within {SECONDS:.0f} s"
        if request.path != "/predict":
            late += ": GET /classes says whether the change was made"
        return _json_error(503, late)
    except Exception:
        logging.exception("%s %s failed", request.method, request.path)
        return _json_error(500, "the service failed: its log says why")


def _known_host(request: web.Request) -> bool:
    """Whether a request names the service by an address or by a name that it has.

    A page of another site may give its own name the address of this machine.
    """
    name = urlsplit(f"//{request.host}").hostname or ""
    try:
        return name in request.app[_NAMES] or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _json_error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
