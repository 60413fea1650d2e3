"""An index directory of PaddleX becomes a catalogue."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.management import progress
from recognition.management.commands.build_index import found_or_made
from recognition.services import index_files
from recognition.services.index_files import Imported


class Command(BaseCommand):
    help = (
        "Import vectors and labels that PaddleX saved (vector.index and id_map.yaml). With "
        "--gallery and --labels, the folder and list the index was built from, pictures come too, "
        "and a sample of them proves that --feature-model made the index. Run it again after an "
        "interruption: nothing is added twice. Exit code 0: all is in, 1: some pictures are not, "
        "2: nothing could be done."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--catalogue", required=True, help="name or key; made if there is none")
        parser.add_argument("--user", help="on whose behalf (default: the first superuser)")
        parser.add_argument(
            "--own",
            action="store_true",
            help="with --user: only into a catalogue of theirs, whichever others they may see",
        )
        parser.add_argument("--index", type=Path, required=True, help="the directory")
        parser.add_argument(
            "--feature-model",
            required=True,
            help="the network that made the index; the files do not say",
        )
        parser.add_argument("--detector", help="of a new catalogue; '' for none")
        parser.add_argument("--gallery", type=Path, help="folder of the pictures")
        parser.add_argument("--labels", type=Path, help="the gallery list the index was built from")

    def handle(self, **options: Any) -> None:
        directory = Path(options["index"])
        if (options["gallery"] is None) != (options["labels"] is None):
            raise CommandError(
                "--gallery and --labels belong together", returncode=progress.NOTHING_DONE
            )
        progress.check_paths(options["labels"], folder=options["gallery"])
        with progress.in_words(), index_files.opened(directory) as content:
            total = len(content.ids)
            with (
                found_or_made(options, **index_files.settings_for(content)) as catalogue,
                progress.bar(total, "import", "vector") as shown,
            ):
                imported = index_files.import_content(
                    catalogue,
                    content,
                    feature_model=options["feature_model"],
                    by=progress.find_user(options["user"]),
                    pictures=options["gallery"] and Path(options["gallery"]),
                    gallery_list=options["labels"] and Path(options["labels"]),
                    progress=lambda done, _: shown.update(done - shown.n),
                )
        self._print(imported, total)

    def _print(self, imported: Imported, total: int) -> None:
        out = self.stdout.write
        out(
            f"{total} vectors: {imported.pictures} with their pictures, {imported.bare} without, "
            f"{imported.duplicates} already there"
        )
        if imported.renumbered:
            out(f"{imported.renumbered} got new vector ids, as theirs were given out already")
        if imported.agreement is None:
            out("without pictures nothing proves which network made them: try a few questions")
        else:
            out(f"a sample of pictures agrees with its vectors: cosine {imported.agreement:.4f}")
        for problem in imported.problems[: progress.MOST_SHOWN]:
            self.stderr.write(problem)
        if imported.problems:
            raise CommandError(
                f"{len(imported.problems)} pictures could not be used; their vectors came without",
                returncode=progress.SOME_FAILED,
            )
