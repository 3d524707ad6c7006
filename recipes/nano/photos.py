"""Collect the photos that photos.yaml names, 640 pixels on the short side, into OUT/train and OUT/test.

    python recipes/nano/photos.py OUT [ROOT ...]

A ROOT is where a package's `/usr/share` lies: `/usr/share` itself when the packages are installed (the default), or a
folder that `dpkg -x` unpacked a package into.
"""

import sys
from pathlib import Path

import yaml
from PIL import Image

SHORT_SIDE = 640


def main(out: Path, roots: list[Path]) -> int:
    """Write the photos; 2 if some are missing, after naming their packages."""
    listed = yaml.safe_load((Path(__file__).parent / "photos.yaml").read_text())
    missing: dict[str, set[str]] = {}
    for split, photos in listed.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        for photo in photos:
            target = out / split / f"{photo['name']}.jpg"
            candidates = [root / base / photo["path"] for root in roots for base in ("", "usr/share", "share")]
            source = next((path for path in candidates if path.is_file()), None)
            if target.exists():
                continue
            if source is None:
                missing.setdefault(photo["package"], set()).add(photo["path"])
                continue
            with Image.open(source) as image:
                image.draft("RGB", (2 * SHORT_SIDE, 2 * SHORT_SIDE))  # a JPEG decodes at a fraction of its size
                picture = image.convert("RGB")
            scale = SHORT_SIDE / min(picture.size)
            if scale < 1:
                size = round(picture.width * scale), round(picture.height * scale)
                picture = picture.resize(size, Image.Resampling.LANCZOS)
            picture.save(target, quality=92)
    if missing:
        count, packages = sum(map(len, missing.values())), " ".join(sorted(missing))
        print(f"{count} photos not found; install or unpack these Debian 12 packages: {packages}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), [Path(root) for root in sys.argv[2:]] or [Path("/usr/share")]))
