"""GET and POST /files: files over plain HTTP, streamed both ways."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import posixpath
import re
import stat
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from email.utils import formatdate, parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from connectrpc.errors import ConnectError
from python_multipart.exceptions import MultipartParseError
from starlette.background import BackgroundTask
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from ags_flows.emulator.envd.context import Context
from ags_flows.emulator.envd.entries import set_metadata

PIECE = 1 << 18
MOST_FILES = 10_000
LARGEST_TEXT = 64 << 20
"""Bytes of a part without a file name: it is held in memory."""

LONGEST_KEY = 246
MOST_METADATA = 4096
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def answer(status: int, message: str) -> Response:
    """Return an error as envd words it."""
    return JSONResponse({"code": status, "message": message}, status)


async def download(context: Context, request: Request) -> Response:
    """Serve a file, with ranges, conditions, and gzip if it is asked for alone."""
    path = _path(context, request)
    try:
        descriptor = await asyncio.to_thread(context.files.open, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise _refusal(error, path) from error
    close = BackgroundTask(os.close, descriptor)
    status = os.fstat(descriptor)
    try:
        if stat.S_ISDIR(status.st_mode):
            raise HTTPException(400, f"path '{path}' is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise HTTPException(400, f"path '{path}' is not a regular file")
        accepted = request.headers.get("accept-encoding", "").strip().lower()
        if re.search(r"identity\s*;\s*q=0(\.0+)?\b", accepted) and "gzip" not in accepted:
            raise HTTPException(406, f"no acceptable encoding: {accepted}")
        tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        headers = {
            "ETag": tag,
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(posixpath.basename(path))}",
        }
        if _unchanged(request, tag, status):
            os.close(descriptor)
            return Response(status_code=304, headers=headers)
        if accepted == "gzip" and "range" not in request.headers:
            headers |= {"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"}
            return StreamingResponse(_compressed(descriptor), headers=headers, background=close)
        if "range" not in request.headers:
            # A file of /proc has size 0.
            size = status.st_size or (None if await asyncio.to_thread(os.pread, descriptor, 1, 0) else 0)
            headers |= {"Accept-Ranges": "bytes"} | ({} if size is None else {"Content-Length": str(size)})
            content = _content(descriptor, size)
            return StreamingResponse(content, headers=headers, media_type="application/octet-stream", background=close)
        # By the descriptor: the path itself would be resolved on the host.
        return FileResponse(
            f"/proc/self/fd/{descriptor}",
            headers=headers,
            media_type="application/octet-stream",
            stat_result=status,
            background=close,
        )
    except (HTTPException, OSError) as error:
        os.close(descriptor)
        raise error if isinstance(error, HTTPException) else _refusal(error, path) from error


async def upload(context: Context, request: Request) -> Response:
    """Write the files of a request, and return what was written."""
    user = _user(context, request)
    metadata = _metadata(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    written: list[dict[str, Any]] = []
    if kind == "application/octet-stream":
        if not request.query_params.get("path"):
            raise HTTPException(400, "path query parameter is required for an octet-stream upload")
        path = _path(context, request)
        await _write(context, path, user, _decoded(request, request.stream()), metadata)
        written.append(_written(path, metadata))
    elif kind == "multipart/form-data":
        form = await _form(request)
        try:
            files = [_part(part) for part in form.getlist("file")]
            paths = _targets(context, request, files, user)
            for path, part in zip(paths, files, strict=True):
                await _write(context, path, user, _pieces(part), metadata)
                written.append(_written(path, metadata))
        finally:
            await form.close()
    else:
        raise HTTPException(400, f"unsupported content type: {kind or 'none'}")
    return JSONResponse(written)


def _targets(context: Context, request: Request, files: list[UploadFile], user: str) -> list[str]:
    """Return where each part goes: one by the query, several by their names."""
    query = request.query_params.get("path")
    if query and len(files) == 1:
        return [context.resolve(query, user)]
    if query and len(files) > 1:
        raise HTTPException(400, "path query parameter is allowed with one file only")
    paths = [context.resolve(part.filename or "", user) for part in files]
    twice = {path for path in paths if paths.count(path) > 1} if len(paths) < 1000 else set()
    if twice or len(set(paths)) < len(paths):
        raise HTTPException(400, f"you cannot upload multiple files to the same path '{min(twice, default=paths[0])}'")
    return paths


async def _write(
    context: Context, path: str, user: str, pieces: AsyncIterator[bytes], metadata: dict[str, str]
) -> None:
    files, owner = context.files, context.owner(user)

    def begin() -> int:
        try:
            if stat.S_ISDIR(files.stat(path).st_mode):
                raise HTTPException(400, f"path is a directory: {path}")
        except FileNotFoundError:
            pass
        files.make_directories(posixpath.dirname(path), owner)
        return files.create(path, owner)

    try:
        descriptor = await asyncio.to_thread(begin)
        try:
            async for piece in pieces:
                if files.full:
                    raise OSError(errno.ENOSPC, "No space left on device")
                await asyncio.to_thread(_write_all, descriptor, piece)
            await asyncio.to_thread(set_metadata, descriptor, metadata)
        finally:
            os.close(descriptor)
    except ClientDisconnect as error:
        raise HTTPException(400, "the upload was broken off") from error
    except OSError as error:
        raise _refusal(error, path) from error


def _write_all(descriptor: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


async def _decoded(request: Request, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        async for piece in pieces:
            yield piece
        return
    if encoding != "gzip":
        raise HTTPException(400, f"unsupported content encoding: {encoding}")
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        async for piece in pieces:
            rest = piece
            while rest:
                yield unzip.decompress(rest, PIECE)
                rest = unzip.unconsumed_tail
        yield unzip.flush()
    except zlib.error as error:
        raise HTTPException(400, f"the content is not gzip: {error}") from error


async def _form(request: Request) -> FormData:
    """Return the parts of an upload; large ones are in temporary files."""
    body = _decoded(request, request.stream())
    try:
        limits = {"max_files": MOST_FILES, "max_fields": MOST_FILES, "max_part_size": LARGEST_TEXT}
        return await MultiPartParser(request.headers, body, **limits).parse()
    except (MultiPartException, MultipartParseError, KeyError) as error:
        raise HTTPException(400, f"the body is not multipart: {error}") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the upload was broken off") from error


async def _pieces(part: UploadFile) -> AsyncIterator[bytes]:
    while piece := await part.read(PIECE):
        yield piece


async def _content(descriptor: int, size: int | None) -> AsyncIterator[bytes]:
    """Yield as much as was announced, also of a file that grows, such as a log; None: all.

    Raises:
        ConnectionError: The file became shorter: the response cannot be completed.
    """
    while size != 0 and (piece := await asyncio.to_thread(os.read, descriptor, min(size or PIECE, PIECE))):
        size = None if size is None else size - len(piece)
        yield piece
    if size:
        raise ConnectionError("the file became shorter")


async def _compressed(descriptor: int) -> AsyncIterator[bytes]:
    squeeze = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    while piece := await asyncio.to_thread(os.read, descriptor, PIECE):
        if squeezed := await asyncio.to_thread(squeeze.compress, piece):
            yield squeezed
    yield squeeze.flush()


def _metadata(request: Request) -> dict[str, str]:
    metadata = {}
    for name, value in request.headers.items():
        if name.startswith("x-metadata-"):
            key = name[len("x-metadata-") :]
            if not _KEY.fullmatch(key) or len(key) > LONGEST_KEY:
                raise HTTPException(400, f"invalid metadata key: {key}")
            metadata[key.lower()] = value
    if sum(len(key) + len(value.encode()) for key, value in metadata.items()) > MOST_METADATA:
        raise HTTPException(400, f"metadata is larger than {MOST_METADATA} bytes")
    return metadata


def _part(part: UploadFile | str) -> UploadFile:
    """Return a part; one without a file name comes as text."""
    return part if isinstance(part, UploadFile) else UploadFile(io.BytesIO(part.encode()))


def _written(path: str, metadata: dict[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": path, "name": posixpath.basename(path), "type": "file"}
    return {**entry, "metadata": metadata} if metadata else entry


def _path(context: Context, request: Request) -> str:
    try:
        return context.resolve(request.query_params.get("path", ""), _user(context, request))
    except ConnectError as error:
        raise HTTPException(400, error.message) from error


def _user(context: Context, request: Request) -> str:
    try:
        return context.check_user(request.query_params.get("username") or context.default_user)
    except ConnectError as error:
        raise HTTPException(401, error.message) from error


def _unchanged(request: Request, tag: str, status: os.stat_result) -> bool:
    known = request.headers.get("if-none-match")
    if known is not None:
        return known.strip() == "*" or tag in [one.strip().removeprefix("W/") for one in known.split(",")]
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        return int(status.st_mtime) <= parsedate_to_datetime(since).timestamp()
    except (TypeError, ValueError):
        return False


def _refusal(error: OSError, path: str) -> HTTPException:
    known = {
        errno.ENOENT: (404, f"path '{path}' does not exist"),
        errno.ENOSPC: (507, "not enough disk space available"),
        errno.EDQUOT: (507, "not enough disk space available"),
        errno.ENOTDIR: (500, f"path is a file: {path}"),
        errno.EISDIR: (400, f"path is a directory: {path}"),
        errno.EACCES: (403, f"permission denied: {path}"),
        errno.EPERM: (403, f"permission denied: {path}"),
        errno.EROFS: (403, f"read-only file system: {path}"),
        errno.ENAMETOOLONG: (400, f"path is too long: {path[:200]}"),
        errno.ELOOP: (400, f"too many links: {path}"),
        errno.EINVAL: (400, f"not a regular file: {path}"),
        errno.ESTALE: (502, "the sandbox was not found"),
    }
    status, message = known.get(error.errno or 0, (500, f"{path}: {error.strerror or error}"))
    return HTTPException(status, message)
