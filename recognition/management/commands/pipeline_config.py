"""PaddleX's pipeline configuration: checked, given to a catalogue, written out."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition import pipeline_file
from recognition.errors import NotFound, RecognitionError
from recognition.management import progress
from recognition.models import Catalogue, Role, User
from recognition.pipeline_file import PipelineConfig
from recognition.services import catalogues, index_files, pipeline_config
from recognition.services.index_child import IndexContent


class Command(BaseCommand):
    help = (
        "Write the pipeline configuration that is in effect, for the site or for a catalogue, as "
        "PaddleX reads it. With FILE: say what in it has no effect; with --catalogue also give it "
        "to that catalogue, its saved index included, which is made when there is none."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="a PP-ShiTuV2.yaml")
        parser.add_argument("--catalogue", help="name or key")
        parser.add_argument(
            "--user", help="who owns a new catalogue (default: the first superuser)"
        )
        parser.add_argument("--output", type=Path, help="write there instead of to the terminal")

    def handle(
        self,
        *,
        file: Path | None,
        catalogue: str | None,
        user: str | None,
        output: Path | None,
        **options: Any,
    ) -> None:
        try:
            if file:
                config = self._given(file, catalogue, user)
            else:
                config = pipeline_config.effective(
                    progress.find_catalogue(catalogue, user) if catalogue else None
                )
        except RecognitionError as error:
            raise CommandError(error.message) from error
        text = pipeline_file.write(config)
        if output is None:
            self.stdout.write(text, ending="")
        else:
            output.write_text(text, encoding="utf-8")
            self.stderr.write(f"written to {output}")

    def _given(self, file: Path, name: str | None, user: str | None) -> PipelineConfig:
        config = pipeline_file.read(file)
        for remark in config.remarks:
            self.stderr.write(f"{file.name}: {remark}")
        for setting, value in config.settings().items():
            self.stderr.write(f"{file.name}: for the workers, set {setting}={value}")
        if name is None:
            return config
        with index_files.opened(config.index) if config.index else nullcontext() as content:
            try:
                catalogue = progress.find_catalogue(name, user, Role.MANAGER)
            except NotFound:
                catalogue = self._made(config, content, name, progress.find_user(user))
            else:
                pipeline_config.apply(config, catalogue)
                self._import(content, catalogue)
        return pipeline_config.effective(catalogue)

    def _made(
        self, config: PipelineConfig, content: IndexContent | None, name: str, owner: User
    ) -> Catalogue:
        options = pipeline_config.options(config)
        if content is not None:
            options |= index_files.settings_for(content)
        catalogue = catalogues.create(name, owner=owner, **options)
        self.stderr.write(f"made the catalogue “{catalogue}”")
        try:
            self._import(content, catalogue)
        except RecognitionError:
            progress.remove_if_empty(catalogue)
            raise
        return catalogue

    def _import(self, content: IndexContent | None, catalogue: Catalogue) -> None:
        if content is not None:
            imported = index_files.import_content(
                catalogue,
                content,
                feature_model=catalogue.require_index().feature_model.name,
                by=catalogue.owner,
            )
            self.stderr.write(
                f"index: {imported.bare} vectors imported, {imported.duplicates} already there"
            )
