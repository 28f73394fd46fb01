"""Data that lies elsewhere: fetched whole into a cache, and pinned to the state that was read."""

import hashlib
import json
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from glob import escape
from itertools import accumulate
from operator import or_
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from zip_pipeline.errors import UserError, require
from zip_pipeline.files import TEMPORARY, fingerprint, sync, write_json
from zip_pipeline.hub import hub_answers, no_answer, without_secrets
from zip_pipeline.ingest.options import AS_FOUND, ReadOptions
from zip_pipeline.ingest.readers import held_back, split_of

DROP_SUFFIX = ".drop.toml"
DOWNLOAD_VARIABLE = "ZIP_PIPELINE_DOWNLOAD_BYTES"
"""Names how much may be fetched for one address, in bytes."""
_DOWNLOAD_BYTES = 200_000_000_000
EXAMPLE = "hf://datasets/ORG/NAME@main:train"
_ENTRY = "fetched.json"
_LIBRARIES = {
    "hf": "huggingface_hub", "s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp",
}  # fmt: skip
_ACCESS = {
    "hf": "accept the dataset's terms on the hub if it has some, and set HF_TOKEN",
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public bucket "
    "set FSSPEC_S3_ANON=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS; for a public bucket set FSSPEC_GS_TOKEN=anon",
}


@dataclass(frozen=True)
class Fetched:
    """A local copy of what lies elsewhere.

    Args:
        path: the file or folder.
        origin: ``address`` (without what is secret in it), ``revision`` (commit, version, ETag or
            hash of what was read) and ``address_hash``, which tells that an address changed.
        left_out: files that were not fetched, since they are for tests or validation.
        options: how its drop file says that it is to be read.
    """

    path: Path
    origin: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    options: ReadOptions = AS_FOUND

    @property
    def name(self) -> str:
        """The name of the file or folder."""
        return self.path.name

    def __str__(self) -> str:
        return self.origin["address"]


def is_address(source: object) -> bool:
    """Return whether a text is an address, such as ``s3://bucket/x.jsonl``, and no local path."""
    return isinstance(source, str) and re.match(r"[A-Za-z][\w+.-]*://", source) is not None


def shown(address: str) -> str:
    """Return an address without password and query, which may be a signature.

    Raises:
        UserError: it is malformed.
    """
    parts = _parts(address)
    if parts.scheme in ("hf", "s3", "gs"):
        return address
    query = "…" if parts.query else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        # Without the address: what is secret in it cannot be told.
        raise UserError(f"{address.partition(':')[0]}://…: no address ({error})") from None


def fetch(address: str, cache: Path, pinned: Mapping[str, str] | None = None) -> Fetched:
    """Return a copy of what an address names, fetched whole where the cache has none.

    Args:
        address: ``hf://datasets/ORG/NAME[@REVISION][/PATH][:SPLIT]``, where PATH is a file, a
            folder, or a subset of the dataset's card; a file or folder of ``s3://`` or ``gs://``;
            a file of ``https://``. Credentials come from the environment, as the libraries have it.
        cache: the folder of the copies, by address and revision.
        pinned: the origin of an earlier copy. The same address gives the same revision then, and
            needs no network where the cache has it.

    Raises:
        UserError: no address, a missing library, no access, nothing there, more than
            ``ZIP_PIPELINE_DOWNLOAD_BYTES``, a broken transfer, or something else than what is
            pinned.
    """
    expected = None
    if pinned and pinned["address_hash"] == _address_hash(address):
        expected = pinned["revision"]
    if expected and (found := _cached(_place(cache, address, expected))):
        return found
    try:
        return _fetched(address, cache, expected)
    except (AssertionError, AttributeError, TypeError):
        raise
    except UserError as error:
        failure = UserError(str(error))
    except Exception as error:  # noqa: BLE001 - each library has errors of its own
        failure = _failure(address, cache, error)
    # Not while the other one is handled: logs would show it, and it may tell a signature.
    raise failure


def _fetched(address: str, cache: Path, expected: str | None) -> Fetched:
    name, source = shown(address), _source(address)
    state = source.look(expected)
    _check_pin(name, state.revision, expected)
    if state.revision and (found := _cached(_place(cache, address, state.revision))):
        return found
    check = partial(_check_size, name, _download_limit())
    check(sum(size or 0 for size in state.files.values()))
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=cache) as folder:
        copy = Path(folder) / source.name
        source.get(state, copy, check)
        revision = state.revision or f"sha256={_sha256(copy)}"
        _check_pin(name, revision, expected)
        origin = {"address": name, "revision": revision, "address_hash": _address_hash(address)}
        entry = {"name": source.name, "origin": origin, "left_out": state.left_out}
        write_json(Path(folder) / _ENTRY, entry)
        place = _place(cache, address, revision)
        _publish(Path(folder), place)
    found = _cached(place)
    assert found is not None
    return found


def _address_hash(address: str) -> str:
    # A password could be guessed from its hash, a signature in the query cannot.
    parts = _parts(address)
    return fingerprint([urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))])


def _place(cache: Path, address: str, revision: str) -> Path:
    return cache / fingerprint([_address_hash(address), revision])


def _cached(place: Path) -> Fetched | None:
    try:
        entry = json.loads((place / _ENTRY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Fetched(place / entry["name"], entry["origin"], tuple(entry["left_out"]))


def _publish(folder: Path, place: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    folder.chmod(0o755)
    try:
        folder.rename(place)
    except OSError:
        # Another process may have fetched the same meanwhile.
        if not place.exists():
            raise
    sync(place.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_limit() -> int:
    given = os.environ.get(DOWNLOAD_VARIABLE) or str(_DOWNLOAD_BYTES)
    if not given.isdecimal() or int(given) == 0:
        raise UserError(f"{DOWNLOAD_VARIABLE}: got {given!r}; allowed are whole numbers of bytes")
    return int(given)


def _check_size(name: str, limit: int, num_bytes: int) -> None:
    if num_bytes > limit:
        raise UserError(
            f"{name}: has more than {limit:,} bytes; if it is what you want, set "
            f"{DOWNLOAD_VARIABLE} higher, or name a part of it"
        )


def _check_pin(name: str, revision: str | None, expected: str | None) -> None:
    if revision and expected and revision != expected:
        raise UserError(
            f"{name}: this drop was read at {expected}, and there is {revision} now; to read that, "
            f"name it in a new NAME{DROP_SUFFIX}"
        )


def _failure(address: str, cache: Path, error: Exception) -> UserError:
    """Return what to tell a person of an error of a library or of the system."""
    name, scheme = shown(address), urlsplit(address).scheme
    if isinstance(error, OSError) and str(error.filename).startswith(str(cache)):
        return UserError(f"{name}: no copy can be kept in {cache} ({error.strerror}); mend that")
    # fsspec takes whatever goes wrong with a web server for a missing file.
    cause = error.__cause__ if scheme in ("http", "https") and error.__cause__ else error
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    response = getattr(cause, "response", None)
    status = getattr(cause, "status", 0) or getattr(response, "status_code", 0)
    words = str(status or type(cause).__name__)
    if "RevisionNotFoundError" in kinds:
        return UserError(f"{name}: the dataset has no such revision; check what stands behind @")
    if "RepositoryNotFoundError" in kinds and "GatedRepoError" not in kinds:
        return UserError(f"{name}: no such dataset ({words}), or a private one; set HF_TOKEN then")
    if status in (401, 403) or kinds & {"PermissionError", "NoCredentialsError"}:
        remedy = _ACCESS.get(scheme, "give an address that may be read from here")
        return UserError(f"{name}: no access ({words}); {remedy}")
    # The hub's library says so where it reaches no server as well.
    if status == 404 or ("FileNotFoundError" in kinds and scheme != "hf"):
        return UserError(f"{name}: nothing is there (404); check the address")
    # Words of a library may hold the whole address.
    told = without_secrets(" ".join(str(cause).split()))
    reason = words if status or name != address else f"{words}: {told}"
    return UserError(f"{name}: cannot be fetched ({reason}); check the address, or try again later")


@dataclass(frozen=True)
class _State:
    """What lies at an address now: its files with their sizes, where these are known."""

    revision: str | None
    files: Mapping[str, int | None]
    left_out: Sequence[str] = ()


def _source(address: str) -> "_Hub | _Store":
    scheme = urlsplit(address).scheme
    if scheme not in _LIBRARIES:
        known = ", ".join(f"{name}://" for name in _LIBRARIES)
        raise UserError(f"{shown(address)}: got {scheme}://; allowed are {known}, and local paths")
    require(_LIBRARIES[scheme], f"{shown(address)}:")
    return _Hub(address) if scheme == "hf" else _Store(address, scheme)


def _visible(address: str, names: Iterable[str]) -> list[str]:
    """Return the names that count, as those in local folders do, sorted; none leads elsewhere."""
    found = sorted(name for name in names if not re.search(r"(^|/)\.[^./]", name))
    if not found:
        raise UserError(f"{address}: holds no file; check the address")
    for name in found:
        if {"", ".", ".."} & set(name.split("/")):
            raise UserError(f"{address}: {name!r} in it is no name for a local file; rename it")
    return found


def _free(name: str) -> str:
    """Return the name of a copy, which stands beside what is told of it."""
    return f"_{name}" if name in (_ENTRY, ".", "..") else name


class _Store:
    """A file or folder of S3 or Google Cloud Storage, or a file of a web server."""

    def __init__(self, address: str, scheme: str) -> None:
        from fsspec import filesystem

        self._shown, self._is_web = shown(address), scheme.startswith("http")
        path = unquote(urlsplit(address).path) if self._is_web else address
        self.name = _free(posixpath.basename(path.rstrip("/")) or "data")
        # What fsspec keeps by itself it keeps for as long as the process lives.
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if self._is_web:
            options |= {"get_client": _client, "encoded": "%" in address}
        # Not by url_to_fs, which takes :: in a name for an address inside the address.
        self._files = filesystem(scheme, **options)
        self._path = address if self._is_web else address.partition("://")[2].rstrip("/")

    def look(self, expected: str | None) -> _State:
        self._files.invalidate_cache()
        info = self._files.info(self._path)
        if info["type"] == "file":
            return _State(_pin_of(info), {"": info["size"]})
        base = f"{self._path.rstrip('/')}/"
        found = self._files.find(self._path, detail=True)
        # Consoles of stores make a folder by an empty object.
        inside = {
            name.removeprefix(base): about
            for name, about in found.items()
            if about["size"] or not name.endswith("/")
        }
        names = _visible(self._shown, inside)
        pins = [part for name in names for part in (name, str(_pin_of(inside[name])))]
        sizes = {name: inside[name]["size"] for name in names}
        return _State(f"files={fingerprint(pins)}", sizes)

    def get(self, state: _State, copy: Path, check: Callable[[int], None]) -> None:
        from fsspec.callbacks import Callback

        class Count(Callback):  # type: ignore[misc]
            """Counts what comes: a server need not tell how much that will be."""

            num_bytes = 0

            def relative_update(self, inc: int = 1) -> None:
                self.num_bytes += inc
                check(self.num_bytes)

            def branched(self, *_: object, **__: object) -> Self:
                return self

        base = self._path.rstrip("/")
        remote = [f"{base}/{name}" if name else self._path for name in state.files]
        local = [copy / name for name in state.files]
        self._files.get(remote, [str(path) for path in local], callback=Count())
        for path, size in zip(local, state.files.values(), strict=True):
            # Web servers may tell the size of what they send compressed.
            if not self._is_web and path.stat().st_size != size:
                raise OSError(f"{path.name}: {path.stat().st_size} of {size} bytes came")
        if self.look(None).revision != state.revision:
            raise UserError(f"{self._shown}: changed while it was fetched; try again")


async def _client(**options: Any) -> Any:  # noqa: ANN401
    import aiohttp

    # By default every download ends after five minutes.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return aiohttp.ClientSession(**{"timeout": timeout, "trust_env": True, **options})


def _pin_of(info: Mapping[str, object]) -> str | None:
    """Return what changes with the content of a file, None where the store tells no such thing."""
    for name in ("VersionId", "generation", "ETag", "etag", "Last-Modified"):
        if (value := str(info.get(name) or "")) not in ("", "null"):
            return f"{name}={value.strip(chr(34))}"
    return None


_HUB = re.compile(
    r"hf://datasets/(?P<repo>[^/@:]+(?:/[^/@:]+)?)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/:]+|[^/:]+))?"
    r"(?:/(?P<path>[^:]+))?(?::(?P<split>[^:/]+))?"
)


class _Hub:
    """A dataset of the hub, or a subset, split, folder or file of it."""

    def __init__(self, address: str) -> None:
        found = _HUB.fullmatch(address.rstrip("/"))
        if not found:
            raise UserError(
                f"{address}: no address of a dataset; write hf://datasets/ORG/NAME and then, as "
                f"needed, @REVISION, /PATH and :SPLIT, as in {EXAMPLE}"
            )
        self._address, self._repo = address, found["repo"]
        self._revision = unquote(found["revision"] or "main")
        self._path, self._split = (found["path"] or "").strip("/"), found["split"]
        self.name = _free(posixpath.basename(self._repo))

    def look(self, expected: str | None) -> _State:
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        if not hub_answers():
            raise UserError(f"{self._address}: {no_answer()}")
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        info = api.dataset_info(self._repo, revision=expected or self._revision)
        sizes = {
            entry.path: entry.size
            for entry in api.list_repo_tree(
                self._repo, repo_type="dataset", revision=info.sha, recursive=True
            )
            if isinstance(entry, RepoFile)
        }
        subsets = {
            str(config.get("config_name", "default")): config
            for config in getattr(info.card_data, "configs", None) or ()
            if isinstance(config, Mapping)
        }
        files, left_out = self._chosen(_visible(self._address, sizes), subsets)
        if not files:
            raise UserError(f"{self._address}: the dataset's card names no file that is there")
        return _State(info.sha, {name: sizes[name] for name in files}, left_out)

    def get(self, state: _State, copy: Path, _check: Callable[[int], None]) -> None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        with disable_progress_bars():
            snapshot_download(
                self._repo,
                repo_type="dataset",
                revision=state.revision,
                allow_patterns=[escape(name) for name in state.files],
                local_dir=copy,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        shutil.rmtree(copy / ".cache", ignore_errors=True)
        if missing := [name for name in state.files if not (copy / name).is_file()]:
            raise OSError(f"{missing[0]} did not come")

    def _chosen(
        self, files: Sequence[str], subsets: Mapping[str, Mapping[str, Any]]
    ) -> tuple[Sequence[str], list[str]]:
        """Return the files to fetch, and those that are for tests or validation."""
        subset, inside = self._subset(files, subsets)
        splits = files_by_split(inside, subset)
        if self._split in splits:
            return splits[self._split], []
        if self._split:
            known = ", ".join(splits)
            raise UserError(f"{self._address}: no split {self._split!r}; there are {known}")
        labels = {name: name for name in inside}
        if subset.get("data_files"):
            labels = {name: split for split, names in splits.items() for name in names}
        left_out = held_back(labels)
        return [name for name in labels if name not in left_out], sorted(left_out)

    def _subset(
        self, files: Sequence[str], subsets: Mapping[str, Mapping[str, Any]]
    ) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Return what the card says of the subset asked for, and the files to look at."""
        if self._path in subsets:
            return subsets[self._path], files
        known = ", ".join(subsets)
        if self._path:
            inside = [n for n in files if n == self._path or n.startswith(f"{self._path}/")]
            if not inside:
                hint = f"; its subsets are {known}" if known else ""
                raise UserError(f"{self._address}: no file or folder {self._path}{hint}")
            return {}, inside
        if len(subsets) > 1:
            raise UserError(
                f"{self._address}: has the subsets {known}; name one, as in "
                f"hf://datasets/{self._repo}@{self._revision}/{next(iter(subsets))}"
            )
        return next(iter(subsets.values()), {}), files


def files_by_split(files: Sequence[str], subset: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the files of each split of a dataset.

    Args:
        files: names in the repository.
        subset: what the dataset's card says of a subset: ``data_files`` and ``data_dir``, both
            optional. Without ``data_files`` the names tell the splits, as in
            ``test-00000-of-00001.parquet``; where none does, all are ``train``.

    Source: https://huggingface.co/docs/hub/datasets-data-files-configuration
    """
    found: dict[str, list[str]] = {}
    folder = str(subset.get("data_dir") or "").strip("/")
    for split, pattern in _patterns(subset.get("data_files")):
        parts = posixpath.normpath(posixpath.join(folder, pattern)).split("/")
        found.setdefault(split, []).extend(n for n in files if _fits(n.split("/"), parts))
    if found:
        return found
    inside = [name for name in files if name.startswith(f"{folder}/" if folder else "")]
    for name in inside:
        if named := _named_split(name):
            found.setdefault(named, []).append(name)
    return found or {"train": inside}


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether the parts of a path are those of a pattern, of which ``**`` is any number.

    As one regular expression, a card's pattern of a few stars could take hours for one name.
    """
    # At each place whether the pattern so far fits the names up to there.
    so_far = [True, *(False for _ in names)]
    for part in parts:
        if part == "**":
            so_far = list(accumulate(so_far, or_))
        else:
            pairs = zip(so_far, names, strict=False)
            so_far = [False, *(fits and fnmatchcase(name, part) for fits, name in pairs)]
    return so_far[-1]


def _patterns(data_files: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    """Return split and pattern of each entry of ``data_files``, in all forms that cards have."""
    if isinstance(data_files, str):
        return [("train", data_files)]
    if isinstance(data_files, Mapping):
        if {"split", "path"} <= data_files.keys():
            data_files = {str(data_files["split"]): data_files["path"]}
        entries = data_files.items()
        return [(str(split), p) for split, inside in entries for _, p in _patterns(inside)]
    if isinstance(data_files, list):
        return [pair for entry in data_files for pair in _patterns(entry)]
    if data_files is None:
        return []
    raise UserError(f"data_files of the dataset's card: {data_files!r} is no name of a file")


_SPLIT_NAMES = {
    "training": "train",
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
}


def _named_split(name: str) -> str | None:
    if shard := re.match(r"([\w.]+)-\d{5}-of-\d{5}", posixpath.basename(name)):
        return shard[1]
    split = split_of(name)
    return _SPLIT_NAMES.get(split, split) if split else None
