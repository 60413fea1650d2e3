"""The models directory: what is installed there, and how it gets there. Loads no paddle.

    <root>/<name>/inference.yml, inference.json|pdmodel, inference.pdiparams [, inference.onnx]
                  inference.xml, inference.bin in the place of a Paddle network: OpenVINO's, int8
                  shitu.json    the manifest: what `InstalledModel` says
    <root>/.downloads/          archives on their way, kept until they are complete

A model is installed whole or not at all: it is put together and tried in a directory of its own,
then renamed. Installed files never change; a model trained anew gets a new name.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from recognition.engine import child, exported
from recognition.engine.download import Progress, download, silent
from recognition.engine.installed import (
    FLOAT32,
    MANIFEST,
    MODEL_FILES,
    ONNX,
    WEIGHTS,
    InstalledModel,
    StoredFile,
    damaged,
    read_manifest,
    sha256,
    weights_digest,
    write_manifest,
)
from recognition.engine.registry import (
    DEFAULT_PADDLEX_NAME,
    INT8_SUFFIX,
    MODELS,
    Role,
    check_name,
    check_role,
    ways_out,
)
from recognition.errors import BadInput, Conflict, ModelUnavailable, SetupError

logger = logging.getLogger(__name__)

LEAST_CALIBRATION = 16  # pictures


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
                raise damaged(name, file)
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
                f"{name} is built, not fetched: run `./manage.py models build-starter`.",
                field="name",
            )
        if spec is None or spec.url is None:
            known = ", ".join(spec.name for spec in MODELS.values() if spec.url)
            raise BadInput(
                f"No model called {name} can be fetched; known: {known}. A network of your own "
                "is registered with `./manage.py models add NAME --role ROLE --dir DIR`.",
                field="name",
            )
        with self.changing():
            if url is None and (present := self._whole(name)):
                return present
            archive = download(
                url or spec.url,
                self.root / ".downloads" / f"{name}.tar",
                max_bytes=exported.MAX_MODEL_BYTES,
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
                "own and use `./manage.py models add`.",
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
            exported.unpack(archive, stage)
            origin = origin | {"archive_sha256": sha256(archive)}
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
        settings = exported.read_settings(stage, role)
        given = (settings.get("Global") or {}).get("model_name")
        if name in MODELS and given not in (None, MODELS[name].paddlex_name):
            raise BadInput(
                f"These files are the model {given}, not {name}: install them under that name.",
                field="name",
            )
        files = {
            file: StoredFile((stage / file).stat().st_size, sha256(stage / file))
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
            preprocessing=exported.preprocessing(settings),
            files=files,
            origin=origin,
            precision=exported.precision(stage),
        )
        present = self._whole(name)
        if present and not own_identity:
            if present.digest == model.digest:
                return present
            raise Conflict(
                f"{name} is installed with other weights ({present.digest[:12]}, these are "
                f"{model.digest[:12]}), and stored vectors may depend on them. Install these "
                "under another name with `./manage.py models add`.",
                field="name",
            )
        write_manifest(stage, model)
        if not model.has(ONNX) and model.has(WEIGHTS):
            model = _with_onnx(stage, model)
        try:
            tried = child.run("try_model", [str(stage)])
        except child.ChildFailed as error:
            raise BadInput(f"{name} cannot be used: {error}", field="name") from error
        write_manifest(stage, model, dimension=tried["dimension"])
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
    made = StoredFile((stage / ONNX).stat().st_size, sha256(stage / ONNX))
    model = replace(model, files={**model.files, ONNX: made})
    write_manifest(stage, model)
    return model
