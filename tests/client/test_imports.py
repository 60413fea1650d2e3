import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_client_needs_no_django_and_no_network_library():
    code = (
        "import sys, recognition.client; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'django', 'celery', 'paddle', 'paddlex', 'cv2', 'faiss', 'yaml', 'psycopg'}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout.strip() == "[]"
