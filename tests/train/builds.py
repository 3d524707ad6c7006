"""A tiny pipeline of every family that can be trained, and the size of its clips."""

from functools import partial

from tests.tiny.lvdm import build_dynamicrafter, build_videocrafter1
from tests.tiny.svd import tiny_svd
from tests.train.tiny_ltx import tiny_ltx
from tests.train.tiny_wan import tiny_wan

BUILD = {
    "svd": tiny_svd,
    "dynamicrafter": build_dynamicrafter,
    "videocrafter1": build_videocrafter1,
    "wan21": lambda: tiny_wan("2.1"),
    "wan22": lambda: tiny_wan("2.2"),
    "wan5b": lambda: tiny_wan("5b"),
    "ltx": tiny_ltx,
    "ltx since 0.9.5": partial(tiny_ltx, since_095=True),
}
SIZE = {"wan21": ([32, 16], 5), "wan22": ([32, 16], 5)} | dict.fromkeys(
    ("wan5b", "ltx", "ltx since 0.9.5"), ([64, 32], 5)
)
