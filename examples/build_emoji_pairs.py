"""Rebuilds ``examples/data/emoji_pairs.parquet`` from pinned npm packages.

Five vendors drew the same emoji in five styles; Unicode gives each concept a name and
English keywords. That makes real image-caption pairs, small enough to commit, with a
natural held-out task: a style nobody trained on.

Nothing else in the project needs this script, npm or the network: the file that it
writes is committed. Run it to check where the data comes from, or to change it:

    pip install pyarrow pillow resvg_py
    python examples/build_emoji_pairs.py --cache ~/.cache/emoji-npm

The same inputs give the same bytes with the same versions of pyarrow and resvg_py.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image

OUTPUT = Path(__file__).parent / "data" / "emoji_pairs.parquet"
SIDE = 32  # pixels


class Package(NamedTuple):
    """One npm package, pinned by version and by the hash of its tarball."""

    name: str
    version: str
    sha256: str

    @property
    def tarball(self) -> str:
        """The file name that ``npm pack`` gives it."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


# In the order of the rows. The last one is the held-out vendor of the quickstart.
VENDORS = {
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    "openmoji": Package(
        "@iconify-json/openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
    "emojione": Package(
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    ),
    "fluent": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
}
EMOJILIB = Package(
    "emojilib",
    "4.0.3",
    "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
)
EMOJIBASE = Package(
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)
COMPONENTS = 2  # emojibase's group of bare skin tones and hair styles: not pictures


class Concept(NamedTuple):
    """One base emoji (no skin tone): what it is called and what it is about."""

    codepoint: str
    name: str
    aliases: tuple[str, ...]
    tags: tuple[str, ...]


def read_member(package: Package, member: str, cache: Path) -> Any:
    """Returns one JSON file of a package, which is downloaded on first use."""
    path = cache / package.tarball
    if not path.exists():
        spec = f"{package.name}@{package.version}"
        command = ["npm", "pack", "--silent", "--pack-destination", str(cache), spec]
        subprocess.run(command, check=True)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.sha256:
        message = f"{path} has sha256 {digest}, but {package.sha256} is pinned"
        raise ValueError(message)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        file = archive.extractfile(f"package/{member}")
        assert file is not None, member
        return json.load(file)


def normalise(codepoints: str) -> str:
    """Returns lower-case code points without the emoji variation selector.

    Packages disagree on whether U+FE0F is part of the key.
    """
    return codepoints.lower().replace("-fe0f", "")


def slug(name: str) -> str:
    """Returns a name the way Iconify spells icon names."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub("['\u2019]", "", name.lower())).strip("-")


def read_concepts(cache: Path) -> list[Concept]:
    """Returns the base emoji in Unicode order, with names and keywords.

    Keywords that say nothing in words, such as ``:D``, are left out.
    """
    lib = {
        normalise("-".join(f"{ord(char):04x}" for char in emoji)): words
        for emoji, words in read_member(
            EMOJILIB, "dist/emoji-en-US.json", cache
        ).items()
    }
    concepts: list[Concept] = []
    for entry in read_member(EMOJIBASE, "en/data.json", cache):
        if entry.get("group") == COMPONENTS:
            continue
        codepoint = normalise(entry["hexcode"])
        name = entry["label"].lower()
        lib_words = [word.replace("_", " ").lower() for word in lib.get(codepoint, [])]
        words = [word.lower() for word in entry.get("tags", [])] + lib_words
        tags = dict.fromkeys(  # keeps the order, drops repeats
            word for word in words if re.search("[a-z]{2}", word) and word != name
        )
        concepts.append(Concept(codepoint, name, tuple(lib_words[:1]), tuple(tags)))
    return concepts


def icon_names(
    icons: dict[str, Any], chars: dict[str, str], concepts: list[Concept]
) -> Iterator[tuple[Concept, str]]:
    """Yields the icon that draws each concept, where the vendor has one.

    Args:
        icons: A package's icons.json.
        chars: A package's chars.json: code points to icon names. Empty for emojione,
            whose icons are found by their names instead.
        concepts: What to look for.
    """
    by_codepoint = {normalise(key): name for key, name in chars.items()}
    known = icons["icons"].keys() | icons["aliases"].keys()
    for concept in concepts:
        if by_codepoint:
            candidates = [by_codepoint.get(concept.codepoint, "")]
        else:
            candidates = [slug(name) for name in (concept.name, *concept.aliases)]
        name = next((name for name in candidates if name in known), None)
        if name is not None:
            yield concept, name


def render(icons: dict[str, Any], name: str) -> np.ndarray:
    """Returns an icon as RGBA pixels with straight alpha, [32, 32, 4] uint8."""
    while name in icons["aliases"]:
        alias = icons["aliases"][name]
        if alias.keys() != {"parent"}:
            message = f"alias {name} transforms its parent, which is not supported"
            raise ValueError(message)
        name = alias["parent"]
    icon = icons["icons"][name]
    width = icon.get("width", icons["width"])
    height = icon.get("height", icons["height"])
    view_box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    # The size is set in the SVG, so that the few icons that are not square are fitted
    # and centred. System fonts would make the pixels depend on the machine.
    png = resvg_py.svg_to_bytes(
        svg_string='<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view_box}" width="{SIDE}" height="{SIDE}">{icon["body"]}</svg>',
        skip_system_fonts=True,
    )
    pixels = np.array(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0  # invisible colours would only cost bytes
    return pixels


def build(cache: Path) -> pa.Table:
    """Returns the table of all (vendor, concept) pairs that a vendor drew."""
    concepts = read_concepts(cache)
    rows: list[tuple[str, Concept]] = []
    images: list[np.ndarray] = []
    for vendor, package in VENDORS.items():
        icons = read_member(package, "icons.json", cache)
        chars = read_member(package, "chars.json", cache)
        for concept, name in icon_names(icons, chars, concepts):
            rows.append((vendor, concept))
            images.append(render(icons, name))
        count = sum(row_vendor == vendor for row_vendor, _ in rows)
        print(f"{vendor:9} {count:5} base emoji")
    return pa.table(
        {
            "vendor": [vendor for vendor, _ in rows],
            "codepoint": [concept.codepoint for _, concept in rows],
            "name": [concept.name for _, concept in rows],
            "tags": pa.array(
                [list(concept.tags) for _, concept in rows], pa.list_(pa.string())
            ),
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(images)),
        }
    )


def main() -> None:
    """Downloads what is missing, renders, and writes the Parquet file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder for the npm packages"
    )
    cache = parser.parse_args().cache
    cache.mkdir(parents=True, exist_ok=True)
    table = build(cache)
    # Pixels are no better for a dictionary; names and vendors are.
    pq.write_table(
        table,
        OUTPUT,
        compression="zstd",
        compression_level=19,
        use_dictionary=["vendor"],
    )
    megabytes = OUTPUT.stat().st_size / 1e6
    print(f"wrote {OUTPUT.name}: {table.num_rows} pairs, {megabytes:.2f} MB")


if __name__ == "__main__":
    main()
