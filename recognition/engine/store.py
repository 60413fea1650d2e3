"""Models on disk: what is installed, and how it gets there. Loads no paddle.

    <root>/<name>/inference.yml, inference.json|pdmodel, inference.pdiparams [, inference.onnx]
                  inference.xml, inference.bin in the place of a Paddle network: OpenVINO's, int8
                  shitu.json    the manifest: what `InstalledModel` says
    <root>/.downloads/          archives on their way, kept until they are complete

A model is installed whole or not at all: it is put together and tried in a directory of its own,
then renamed. Installed files never change; a model trained anew gets a new name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from recognition.engine import child
from recognition.engine.download import Progress, download, silent
from recognition.engine.registry import (
    DEFAULT_PADDLEX_NAME,
    INT8_SUFFIX,
    MODELS,
    Role,
    check_name,
    check_role,
)
from recognition.errors import BadInput, Conflict, ModelUnavailable, SetupError, TooLarge

logger = logging.getLogger(__name__)

MANIFEST = "shitu.json"
SETTINGS = "inference.yml"
NETWORKS = ("inference.json", "inference.pdmodel")
WEIGHTS = "inference.pdiparams"
ONNX = "inference.onnx"
OPENVINO_IR = ("inference.xml", "inference.bin")
MODEL_FILES = (SETTINGS, *NETWORKS, WEIGHTS, ONNX, *OPENVINO_IR)
FLOAT32, INT8 = "float32", "int8"
LEAST_CALIBRATION = 16  # pictures
MAX_MODEL_BYTES = 8 * 2**30  # the largest official one has 1.05 GB
MAX_MEMBERS = 1000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a model: its size in bytes and sha256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that is on disk.

    `digest` (sha256, 64 hex digits) is its identity: two machines with the same digest make the
    same vectors. It is taken over network, weights and `inference.yml` as they were given, never
    over files an engine makes from them; for the starter models, which every machine builds for
    itself, over what they are built from. `dimension` is measured (None for a detector),
    `preprocessing` is the part of `inference.yml` that says so, `origin` tells where it is from,
    `precision` is that of the arithmetic, FLOAT32 or INT8.
    """

    name: str
    role: Role
    paddlex_name: str
    directory: Path
    digest: str
    dimension: int | None
    preprocessing: Mapping[str, Any]
    files: Mapping[str, StoredFile]
    origin: Mapping[str, str] = field(default_factory=dict)
    precision: str = FLOAT32

    def has(self, *names: str) -> bool:
        """Whether all these files belong to the model."""
        return all(name in self.files for name in names)

    def verify(self) -> None:
        """Read every file and compare; raises ModelUnavailable when one was changed.

        Takes about half a second per gigabyte.
        """
        for name, stored in self.files.items():
            path = self.directory / name
            if not path.is_file() or _sha256(path) != stored.sha256:
                raise _damaged(self.name, name)


class ModelStore:
    """The models below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = FileLock(root / ".lock")

    def names(self) -> list[str]:
        """The names of everything installed, damaged or not."""
        return sorted(path.parent.name for path in self.root.glob(f"[!.]*/{MANIFEST}"))

    def installed(self) -> list[InstalledModel]:
        """Everything installed that is whole at first glance, by name; `get` says what is not."""
        found = []
        for name in self.names():
            with suppress(ModelUnavailable):
                found.append(self.get(name))
        return found

    def get(self, name: str) -> InstalledModel:
        """The installed model called `name`, after a look at its files' sizes.

        Raises ModelUnavailable, in milliseconds and without touching the network, when it is not
        installed or damaged; the message says what to do.
        """
        directory = self.root / check_name(name)
        if not (directory / MANIFEST).is_file():
            raise ModelUnavailable(
                f"The model {name} is not installed on this machine. {ways_out(name)}"
            )
        model = read_manifest(directory)
        for file, stored in model.files.items():
            path = directory / file
            if not path.is_file() or path.stat().st_size != stored.size:
                raise _damaged(name, file)
        return model

    def fetch(
        self, name: str, *, url: str | None = None, progress: Progress = silent
    ) -> InstalledModel:
        """Download and install an official model; at once when it is installed and whole.

        An interrupted download goes on where it ended. `url` replaces the known address (a
        mirror). `progress` is called with (bytes so far, bytes in all or None). Raises BadInput
        for a name that has no address, ModelUnavailable when it cannot be had.
        """
        spec = MODELS.get(name)
        if spec is not None and spec.source == "starter":
            raise BadInput(
                f"{name} is built, not fetched: run `manage.py models build-starter`.", field="name"
            )
        if spec is None or spec.url is None:
            known = ", ".join(spec.name for spec in MODELS.values() if spec.url)
            raise BadInput(
                f"No model called {name} can be fetched; known: {known}. A network of your own "
                "is registered with `manage.py models add NAME --role ROLE --dir DIR`.",
                field="name",
            )
        with self.changing():
            if url is None and (present := self._whole(name)):
                return present
            archive = download(
                url or spec.url,
                self.root / ".downloads" / f"{name}.tar",
                max_bytes=MAX_MODEL_BYTES,
                progress=progress,
                otherwise=ways_out(name),
            )
            try:
                return self._install_tar(name, archive, {"url": url or spec.url})
            finally:
                archive.unlink()  # complete, so either installed or of no use

    def install_tar(self, name: str, file: Path) -> InstalledModel:
        """Install an official model from an archive carried by hand (`NAME_infer.tar`).

        Raises BadInput when it is not such an archive or holds another model, Conflict when other
        weights are installed under that name.
        """
        if name not in MODELS or MODELS[name].source != "official":
            known = ", ".join(spec.name for spec in MODELS.values() if spec.url)
            raise BadInput(
                f"--from installs one of the official models ({known}); unpack an archive of your "
                "own and use `manage.py models add`.",
                field="name",
            )
        if not file.is_file():
            raise BadInput(f"There is no file {file.name} to install from.", field="from")
        with self.changing():
            return self._install_tar(name, file, {"file": file.name})

    def add_directory(self, name: str, role: str, directory: Path) -> InstalledModel:
        """Register a directory that PaddleX exported (`inference.yml` and weights) as `name`.

        The files are copied, so that training on in that directory cannot change what stored
        vectors were made with. The model must pass the self-test. Adding the same once more does
        nothing. Raises BadInput for what is not such a directory, Conflict when `name` is taken
        by other weights.
        """
        check_name(name)
        role = check_role(role)
        spec = MODELS.get(name)
        if spec is not None and spec.source == "starter":
            raise BadInput(f"{name} is the name of a starter model: choose another.", field="name")
        if spec is not None and spec.role != role:
            raise BadInput(f"{name} is the name of a {spec.role}: choose another.", field="name")
        if not directory.is_dir():
            raise BadInput(f"There is no directory {directory.name} to add.", field="dir")
        with self.changing(), self._staging() as stage:
            for file in MODEL_FILES:
                if (directory / file).is_file():
                    shutil.copyfile(directory / file, stage / file)
            return self._install(stage, name, role, {"directory": directory.name})

    def install_built(self, name: str, role: Role, digest: str, built: Path) -> InstalledModel:
        """Install the files in the directory `built` under the identity `digest`.

        Other weights under that name are replaced: for what this machine makes itself.
        """
        with self.changing(), self._staging() as stage:
            for file in built.iterdir():
                shutil.copyfile(file, stage / file.name)
            return self._install(stage, name, role, {"built": "here"}, digest=digest)

    def quantise(
        self, name: str, pictures: Sequence[Path], *, new_name: str | None = None
    ) -> InstalledModel:
        """Make the int8 twin of a model (`NAME-int8`), calibrated on these picture files.

        Takes a minute or more. Raises BadInput when the model has no ONNX file or there are too few
        pictures, Conflict when a twin made otherwise is installed, SetupError without NNCF or when
        it fails.
        """
        model = self.get(name)
        new_name = check_name(new_name or name + INT8_SUFFIX)
        if new_name in MODELS:
            raise BadInput(f"{new_name} is the name of another model: choose another.", field="as")
        if model.precision != FLOAT32 or not model.has(ONNX):
            raise BadInput(
                f"{name} cannot be quantised: it has no float network in ONNX. Paddle networks get "
                "one when they are added, where they can be converted; the log then said why not.",
                field="name",
            )
        if len(pictures) < LEAST_CALIBRATION:
            raise BadInput(
                f"{len(pictures)} pictures do not tell what the network will see: give "
                f"{LEAST_CALIBRATION} or more, a few hundred are best.",
                field="pictures",
            )
        if importlib.util.find_spec("nncf") is None:
            raise SetupError(
                "Quantisation needs NNCF, which is not installed: `pip install nncf==3.4.0`, or "
                "install the project with its extra int8."
            )
        with self.changing(), self._staging() as stage, tempfile.TemporaryDirectory() as scratch:
            listed = Path(scratch, "pictures.txt")
            listed.write_text("\n".join(map(str, pictures)), encoding="utf-8")
            try:
                how = child.run(
                    "quantise", [str(model.directory), str(listed), str(stage)], timeout=3600
                )
            except child.ChildFailed as error:
                raise SetupError(f"{name} cannot be quantised: {error}") from error
            origin = {"quantised": name, "of": model.digest, **how}
            return self._install(stage, new_name, model.role, origin)

    def _install_tar(self, name: str, archive: Path, origin: dict[str, str]) -> InstalledModel:
        with self._staging() as stage:
            unpack(archive, stage)
            origin = origin | {"archive_sha256": _sha256(archive)}
            return self._install(stage, name, MODELS[name].role, origin)

    def _install(
        self,
        stage: Path,
        name: str,
        role: Role,
        origin: dict[str, str],
        *,
        digest: str | None = None,
    ) -> InstalledModel:
        """Check, measure and try the files in `stage`, then rename it to its place."""
        settings = _read_settings(stage, role)
        given = (settings.get("Global") or {}).get("model_name")
        if name in MODELS and given not in (None, MODELS[name].paddlex_name):
            raise BadInput(
                f"These files are the model {given}, not {name}: install them under that name.",
                field="name",
            )
        files = {
            file: StoredFile((stage / file).stat().st_size, _sha256(stage / file))
            for file in MODEL_FILES
            if (stage / file).is_file()
        }
        own_identity = digest is not None
        model = InstalledModel(
            name=name,
            role=role,
            paddlex_name=given or DEFAULT_PADDLEX_NAME[role],
            directory=self.root / name,
            digest=digest or weights_digest(files),
            dimension=None,
            preprocessing=_preprocessing(settings),
            files=files,
            origin=origin,
            precision=_precision(stage),
        )
        present = self._whole(name)
        if present and not own_identity:
            if present.digest == model.digest:
                return present
            raise Conflict(
                f"{name} is installed with other weights ({present.digest[:12]}, these are "
                f"{model.digest[:12]}), and stored vectors may depend on them. Install these "
                "under another name with `manage.py models add`.",
                field="name",
            )
        _write_manifest(stage, model)
        if not model.has(ONNX) and model.has(WEIGHTS):
            model = _with_onnx(stage, model)
        try:
            tried = child.run("try_model", [str(stage)])
        except child.ChildFailed as error:
            raise BadInput(f"{name} cannot be used: {error}", field="name") from error
        _write_manifest(stage, model, dimension=tried["dimension"])
        stage.chmod(0o755)  # mkdtemp made it private
        if model.directory.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=self.root))
            model.directory.rename(old / name)
            stage.rename(model.directory)
            shutil.rmtree(old)
        else:
            stage.rename(model.directory)
        return read_manifest(model.directory)

    def _whole(self, name: str) -> InstalledModel | None:
        """The model if it is installed and every byte is right."""
        try:
            model = self.get(name)
            model.verify()
        except ModelUnavailable:
            return None
        return model

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Only one process changes the directory at a time; another one waits for it.

        May be entered again inside. Raises SetupError where the directory cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise SetupError(
                f"The models directory cannot be written ({error.strerror}): set SHITU_MODELS_DIR "
                "to a directory this user may write to."
            ) from error
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A directory beside the models, gone afterwards unless it was renamed."""
        stage = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.root))
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def ways_out(name: str) -> str:
    """What somebody can do who lacks the model `name`, in one sentence."""
    spec = MODELS.get(name)
    if spec is None and name.endswith(INT8_SUFFIX):
        return (
            f"Make it with `manage.py models quantise {name.removesuffix(INT8_SUFFIX)}`, or copy "
            "its directory from where that was done: made anew, its weights are others."
        )
    if spec is not None and spec.source == "starter":
        return "Build the starter models with `manage.py models build-starter`."
    role = spec.role if spec else "ROLE"
    add = f"`manage.py models add {name} --role {role} --dir DIR`"
    if spec is None:
        return f"Add the directory of its network with {add}."
    return (
        f"Three ways out: `manage.py models fetch {name}` downloads it; `manage.py models fetch "
        f"{name} --from FILE.tar` installs an archive carried by hand; {add} takes a directory "
        "of your own."
    )


def _with_onnx(stage: Path, model: InstalledModel) -> InstalledModel:
    """The model with an ONNX file too, for the faster engines, where its network can be converted
    and answers as before. Otherwise Paddle alone runs it, and the log says why."""
    try:
        child.run("convert_to_onnx", [str(stage)])
    except child.ChildFailed as error:
        (stage / ONNX).unlink(missing_ok=True)
        logger.warning(
            "%s is not converted to ONNX, so only Paddle runs it, slower than OpenVINO and "
            "onnxruntime would: %s",
            model.name,
            error,
        )
        return model
    made = StoredFile((stage / ONNX).stat().st_size, _sha256(stage / ONNX))
    model = replace(model, files={**model.files, ONNX: made})
    _write_manifest(stage, model)
    return model


def _precision(stage: Path) -> str:
    network = stage / OPENVINO_IR[0]
    quantised = network.is_file() and b'type="FakeQuantize"' in network.read_bytes()
    return INT8 if quantised else FLOAT32


def not_a(role: Role, model: InstalledModel) -> BadInput:
    """The error of using a model for what it does not do."""
    noun = {"detector": "a detector", "embedder": "an embedder"}
    return BadInput(f"{model.name} is not {noun[role]} but {noun[model.role]}.", field="name")


def weights_digest(files: Mapping[str, StoredFile]) -> str:
    """The identity of a model: sha256 over name and sha256 of each file that defines it.

    `inference.onnx` counts only where there is no Paddle network, because otherwise it is a
    conversion, and converters differ between versions.
    """
    paddle = [file for file in files if file in (*NETWORKS, WEIGHTS)]
    network = paddle or [file for file in files if file in (ONNX, *OPENVINO_IR)]
    lines = [f"{file} {files[file].sha256}\n" for file in sorted([SETTINGS, *network])]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_manifest(directory: Path) -> InstalledModel:
    """The model that `directory` holds, by its manifest alone. Raises ModelUnavailable."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        files = {name: StoredFile(**stored) for name, stored in manifest.pop("files").items()}
        return InstalledModel(directory=directory, files=files, **manifest)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(directory.name, MANIFEST) from error


def _write_manifest(stage: Path, model: InstalledModel, *, dimension: int | None = None) -> None:
    manifest = asdict(model) | {"dimension": dimension}
    del manifest["directory"]
    text = json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True)
    partial = stage / f"{MANIFEST}.new"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(stage / MANIFEST)


def _read_settings(stage: Path, role: Role) -> dict[str, Any]:
    """`inference.yml` of a complete model directory with that role; raises BadInput."""
    present = {path.name for path in stage.iterdir()}
    has_paddle = WEIGHTS in present and any(network in present for network in NETWORKS)
    has_other = ONNX in present or present.issuperset(OPENVINO_IR)
    if SETTINGS not in present or not (has_paddle or has_other):
        raise BadInput(
            "This is no model as PaddleX exports it: it needs inference.yml and either "
            "inference.json (or .pdmodel) with inference.pdiparams, or inference.onnx, or "
            "inference.xml with inference.bin; found "
            f"{', '.join(sorted(present)) or 'none of them'}.",
            field="dir",
        )
    try:
        settings = yaml.safe_load((stage / SETTINGS).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"inference.yml cannot be read: {error}", field="dir") from error
    sections = settings if isinstance(settings, dict) else {}
    if role == "embedder":
        steps = (sections.get("PreProcess") or {}).get("transform_ops") or []
        names = {name for step in steps for name in step}
        missing = {"ResizeImage", "NormalizeImage", "ToCHWImage"} - names
        if "NormalizeFeatures" not in (sections.get("PostProcess") or {}):
            missing.add("NormalizeFeatures")
    else:
        missing = {"Preprocess", "label_list"} - sections.keys()
    if missing:
        raise BadInput(
            f"inference.yml is not that of a {role}: it lacks {', '.join(sorted(missing))}.",
            field="role",
        )
    return sections


def _preprocessing(settings: Mapping[str, Any]) -> dict[str, Any]:
    sections = ("Preprocess", "PreProcess", "PostProcess", "label_list", "draw_threshold")
    return {section: settings[section] for section in sections if section in settings}


def unpack(archive: Path, stage: Path) -> None:
    """Take the model files out of a tar archive, whatever folder they lie in.

    Only files with the names of `MODEL_FILES` are written, and only directly into `stage`. An
    archive with links, devices, paths that lead outside, or too much in it is refused as a whole:
    PaddleX extracts whatever it is given. Raises BadInput, TooLarge.
    """
    total = 0
    try:
        with tarfile.open(archive) as tar:
            for number, member in enumerate(tar):
                parts = Path(member.name).parts
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise BadInput(f"{member.name!r} in the archive is no ordinary file.")
                if Path(member.name).is_absolute() or ".." in parts:
                    raise BadInput(f"{member.name!r} in the archive leads out of it.")
                total += member.size
                if total > MAX_MODEL_BYTES or number >= MAX_MEMBERS:
                    raise TooLarge(
                        f"The archive holds more than {MAX_MODEL_BYTES >> 30} GiB or "
                        f"{MAX_MEMBERS} entries: no model does."
                    )
                source = tar.extractfile(member)
                if source is None or parts[-1] not in MODEL_FILES:
                    continue
                with source, (stage / parts[-1]).open("xb") as target:
                    shutil.copyfileobj(source, target, 2**20)
    except FileExistsError as error:
        raise BadInput(f"The archive holds {Path(error.filename).name} twice.") from error
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"The file is not a complete tar archive: {error}.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(name: str, file: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The model {name} is damaged: {file} is missing or not what was installed. Install it "
        f"again. {ways_out(name)}"
    )
