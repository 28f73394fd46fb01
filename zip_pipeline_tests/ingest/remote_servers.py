"""Small servers on loopback: files of the web, a hub of datasets, and object stores."""

import contextlib
import hashlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from zip_pipeline_tests.loopback import LoopbackServer


@dataclass(frozen=True)
class Answer:
    """What the server says to a request."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    missing_bytes: int = 0


def as_json(value: object) -> Answer:
    """Answer with JSON."""
    return Answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: "FileServer"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.files.requests[f"{self.command} {url.path}"] += 1
        self.files.credentials.append(self.headers.get("Authorization", ""))
        answer = self.files.answer(unquote(url.path), parse_qs(url.query))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) + answer.missing_bytes))
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # some ask and do not listen
                self.wfile.write(answer.body)
        self.close_connection = bool(answer.missing_bytes)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class FileServer(LoopbackServer):
    """Serves ``files`` by path; use it in a ``with`` block, at whose end it stops."""

    def __init__(self) -> None:
        self.files: dict[str, Answer] = {}
        self.requests: Counter[str] = Counter()
        self.credentials: list[str] = []
        super().__init__(type("Handler", (_Handler,), {"files": self}))
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Return the file of a path."""
        return self.files.get(path, Answer(status=404))


class Hub(FileServer):
    """A hub of datasets: commits of files, of which ``main`` is the last."""

    def __init__(self) -> None:
        super().__init__()
        self._commits: dict[str, dict[str, Mapping[str, bytes]]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.refusals: dict[str, Answer] = {}

    def commit(self, repo: str, files: Mapping[str, bytes]) -> str:
        """Make these all files of a dataset; return the commit."""
        commits = self._commits.setdefault(repo, {})
        sha = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[sha] = files
        return sha

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Speak as much of the hub's protocol as ``huggingface_hub`` needs to fetch files."""
        api, is_resolved = path.startswith("/api/"), "/resolve/" in path
        if not path.removeprefix("/api").startswith("/datasets/"):
            return Answer(status=404)
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        repo, verb, revision, name = "/".join(parts[:2]), parts[2], parts[3], "/".join(parts[4:])
        if refusal := self.refusals.get(repo):
            return refusal
        if not (commits := self._commits.get(repo)):
            return Answer(status=404, headers={"X-Error-Code": "RepoNotFound"})
        sha = list(commits)[-1] if revision == "main" else revision
        if sha not in commits:
            return Answer(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        files = commits[sha]
        if api and verb == "revision":
            return as_json({"id": repo, "sha": sha, "cardData": self.cards.get(repo, {})})
        if api and verb == "tree":
            return as_json([_tree_entry(name, content) for name, content in files.items()])
        if is_resolved and name in files:
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            return Answer(files[name], headers={"ETag": etag, "X-Repo-Commit": sha})
        return Answer(status=404, headers={"X-Error-Code": "EntryNotFound"})


def _tree_entry(name: str, content: bytes) -> dict[str, object]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "oid": oid, "size": len(content), "path": name}


class GoogleStore(FileServer):
    """A bucket ``pool`` of Google Cloud Storage, by its JSON interface."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, tuple[bytes, int]] = {}

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Describe, list or send objects."""
        name = path.partition("/b/pool/o")[2].lstrip("/")
        if not name:
            prefix = query.get("prefix", [""])[0]
            found = [self._describe(n) for n in sorted(self.objects) if n.startswith(prefix)]
            return as_json({"items": found})
        if name not in self.objects:
            return Answer(status=404)
        return Answer(self.objects[name][0]) if "alt" in query else as_json(self._describe(name))

    def _describe(self, name: str) -> dict[str, str]:
        content, generation = self.objects[name]
        size, etag = str(len(content)), f"e{generation}"
        about = {"name": name, "bucket": "pool", "size": size, "etag": etag}
        return about | {"generation": str(generation)}


@dataclass(frozen=True)
class _Object:
    content: bytes
    generation: int
    written: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def headers(self) -> dict[str, str]:
        return {
            "ETag": f'"{hashlib.md5(self.content).hexdigest()}"',
            "x-goog-generation": str(self.generation),
            "Last-Modified": format_datetime(self.written, usegmt=True),
        }


class GoogleBucket(LoopbackServer):
    """The bucket ``pool`` of Google Cloud Storage, by the XML API: writes on conditions, in parts.

    Pages of lists are small. ``refusal``, where it is not 0, is the status that all get.

    Source: https://cloud.google.com/storage/docs/xml-api/reference-methods
    """

    page_size = 2

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: Counter[str] = Counter()
        self.refusal = 0
        self._generations = itertools.count(1)
        self._lock = threading.Lock()
        super().__init__(type("Handler", (_BucketHandler,), {"bucket": self}))
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(
        self, method: str, address: str, headers: Mapping[str, str], content: bytes
    ) -> Answer:
        """Do what a request asks for, whole, as other requests see it."""
        url = urlsplit(address)
        bucket, _, name = url.path.lstrip("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(url.query, True).items()}
        with self._lock:
            self.requests[method] += 1
            if self.refusal:
                return _fault(self.refusal, "AccessDenied")
            if bucket != "pool":
                return _fault(404, "NoSuchBucket")
            if not name:
                return self._page(query)
            do = getattr(self, f"_{method.lower()}")
            answer: Answer = do(unquote(name), query, headers, content)
            return answer

    def _page(self, query: Mapping[str, str]) -> Answer:
        after = query.get("continuation-token", "")
        names = [n for n in sorted(self.objects) if n.startswith(query["prefix"]) and n > after]
        shown, more = names[: self.page_size], names[self.page_size :]
        listed = "".join(
            f"<Contents><Key>{name}</Key><Size>{len(found.content)}</Size>"
            f"<ETag>{found.headers['ETag']}</ETag>"
            f"<LastModified>{found.written:%Y-%m-%dT%H:%M:%S.%fZ}</LastModified></Contents>"
            for name, found in ((name, self.objects[name]) for name in shown)
        )
        token = f"<NextContinuationToken>{shown[-1]}</NextContinuationToken>" if more else ""
        return _as_xml("ListBucketResult", f"{listed}{token}")

    def _get(self, name: str, *_: object) -> Answer:
        if name not in self.objects:
            return _fault(404, "NoSuchKey")
        return Answer(self.objects[name].content, headers=self.objects[name].headers)

    _head = _get

    def _delete(self, name: str, query: Mapping[str, str], *_: object) -> Answer:
        if "uploadId" in query:
            return Answer(status=204 if self.parts.pop(query["uploadId"], None) else 404)
        return Answer(status=204) if self.objects.pop(name, None) else _fault(404, "NoSuchKey")

    def _put(
        self, name: str, query: Mapping[str, str], headers: Mapping[str, str], content: bytes
    ) -> Answer:
        wanted, there = headers.get("x-goog-if-generation-match"), self.objects.get(name)
        if wanted is not None and int(wanted) != (there.generation if there else 0):
            return _fault(412, "PreconditionFailed")
        if "uploadId" in query:
            self.parts[query["uploadId"]][int(query["partNumber"])] = content
            return Answer(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})
        if source := headers.get("x-goog-copy-source"):
            copied = self.objects.get(unquote(source).partition("/")[2])
            if copied is None:
                return _fault(404, "NoSuchKey")
            self._write(name, copied.content)
            return _as_xml("CopyObjectResult", "")
        self._write(name, content)
        return Answer(headers=self.objects[name].headers)

    def _post(self, name: str, query: Mapping[str, str], *_: object) -> Answer:
        if "uploads" in query:
            upload = str(next(self._generations))
            self.parts[upload] = {}
            return _as_xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        parts = self.parts.pop(query["uploadId"])
        self._write(name, b"".join(parts[number] for number in sorted(parts)))
        etag = self.objects[name].headers["ETag"]
        return _as_xml("CompleteMultipartUploadResult", f"<ETag>{etag}</ETag>")

    def _write(self, name: str, content: bytes) -> None:
        self.objects[name] = _Object(content, next(self._generations))


def _as_xml(name: str, content: str, status: int = 200) -> Answer:
    body = f"<?xml version='1.0' encoding='UTF-8'?><{name}>{content}</{name}>".encode()
    return Answer(body, status, {"Content-Type": "application/xml"})


def _fault(status: int, code: str) -> Answer:
    return _as_xml("Error", f"<Code>{code}</Code>", status)


class _BucketHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: GoogleBucket

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.bucket.answer(self.command, self.path, headers, content)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Stay silent."""
