"""Index directories of PaddleX (`vector.index` and `id_map.yaml`), out and in.

For commands and workers, never for the web process: FAISS is imported to write inside functions,
and to read what others wrote in a child process only (`recognition/services/index_child.py`).

- `exporting`   a catalogue becomes such a directory, or a ZIP of its two files
- `importing`   the vectors of one go into a catalogue, with or without their pictures
- `adding`      what is written for that, chunk by chunk

An image that came without its picture has no file (`file == ""`), no size and no box. It is found
like any other, but nobody can look at it, and no other network can embed it.
"""

from recognition.services.index_files.exporting import Exported, export_directory, write_zip
from recognition.services.index_files.importing import (
    Imported,
    import_content,
    import_directory,
    opened,
    settings_for,
)

__all__ = [
    "Exported",
    "Imported",
    "export_directory",
    "import_content",
    "import_directory",
    "opened",
    "settings_for",
    "write_zip",
]
