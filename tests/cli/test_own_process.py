"""Commands in a process of their own, where nothing is imported but what the command itself imports."""

import json
import subprocess
import sys
from functools import cache

import pytest

from tests.attach.watch import all_tiny
from tests.tiny.animate_anything import tiny_animate_anything

NATIVE = ("dynamicrafter", "videocrafter1", "animate-anything")

LOADED = """
import json, sys
import unleak
pipe = unleak.load(sys.argv[1])
print(json.dumps([type(pipe).__name__, sorted(name for name, part in pipe.components.items() if part is None)]))
"""
FROM_PRETRAINED = """
import json, sys
from importlib import import_module
module, name = sys.argv[2:]
pipe = getattr(import_module(module), name).from_pretrained(sys.argv[1])
print(json.dumps([type(pipe).__name__, sorted(name for name, part in pipe.components.items() if part is None)]))
"""


def alone(*arguments, cwd):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    build = {one.name: one.build for one in all_tiny()} | {"animate-anything": tiny_animate_anything}

    def save(name):
        folder, pipe = tmp_path_factory.mktemp("models") / name, build[name]()
        pipe.save_pretrained(folder)
        return folder, type(pipe)

    return cache(save)


@pytest.mark.parametrize("name", NATIVE)
def test_a_folder_of_ours_loads_where_nothing_is_imported_yet(saved, tmp_path, name):
    folder, kind = saved(name)
    done = alone("-c", LOADED, folder, cwd=tmp_path)
    assert json.loads(done.stdout) == [kind.__name__, []]


def test_from_pretrained_needs_no_other_import(saved, tmp_path):
    folder, kind = saved("dynamicrafter")
    done = alone("-c", FROM_PRETRAINED, folder, kind.__module__, kind.__name__, cwd=tmp_path)
    assert json.loads(done.stdout) == [kind.__name__, []]
