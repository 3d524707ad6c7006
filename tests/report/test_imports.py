"""What makes videos loads neither Jinja2 nor matplotlib: they are in the `evaluate` extra."""

import subprocess
import sys

PROGRAM = """
import sys
import unleak.cli.app, unleak.report.compare_page, unleak.report.evaluate_page, unleak.report.sweep_page
sys.exit([name for name in ("jinja2", "matplotlib") if name in sys.modules] or 0)
"""


def test_pages_load_their_libraries_when_one_is_written():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
