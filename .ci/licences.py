"""The licences of everything that fpjax needs, from what is installed; fails for one that is not in the list.

    python .ci/licences.py [EXTRA ...]      # extras whose requirements count too; by default those that users install

An allow-list of licences that go together with Apache-2.0. Known vulnerabilities are another question.
"""

import re
import sys
from importlib import metadata

from packaging.requirements import Requirement

EXTRAS = ("cluster", "parquet", "testing")
ALLOWED = {
    "apache-2.0", "apache software license", "apache license 2.0", "apache license, version 2.0", "apache", "apache 2.0",
    "bsd", "bsd license", "bsd-2-clause", "bsd-3-clause", "bsd 3-clause license", "new bsd", "3-clause bsd license",
    "mit", "mit license", "mit-cmu", "mit-0", "isc", "isc license", "isc license (iscl)",
    "0bsd", "zlib", "hpnd", "cc0-1.0", "unlicense",
    "psf-2.0", "python-2.0", "python software foundation license", "psf",
    "mpl-2.0", "mozilla public license 2.0 (mpl 2.0)",  # file-level copyleft: hypothesis, which only tests load
    "lgpl-3.0-or-later",  # FLINT inside python-flint: a shared library that is loaded, not copied
}  # fmt: skip


def closure(extras: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """The distributions that fpjax needs, directly or not, on this machine."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [("fpjax", extras)]
    while waiting:
        name, wanted = waiting.pop()
        about = metadata.distribution(name)
        key = re.sub(r"[-_.]+", "-", about.metadata["Name"]).lower()
        if key in found and not wanted:
            continue
        found[key] = about
        for text in about.requires or []:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in (*wanted, "")):
                waiting.append((need.name, tuple(need.extras)))
    return found


def licences(about: metadata.Distribution) -> list[str]:
    """What a distribution says of itself, an SPDX expression, classifiers, or a short text: all of these hold, each of them
    maybe a choice (``A OR B``)."""
    fields = about.metadata
    if expression := fields.get("License-Expression"):
        return [part.strip("() ") for part in re.split(r"\s+AND\s+", expression)]
    kinds = [c.rsplit(" :: ", 1)[-1] for c in fields.get_all("Classifier", []) if c.startswith("License :: ")]
    kinds = [k for k in kinds if k != "OSI Approved"]
    text = (fields.get("License") or "").strip()
    return kinds or ([text.splitlines()[0]] if text else [])


def main(extras: tuple[str, ...]) -> int:
    """Prints them; 1 if one is not in the list."""
    bad = 0
    for name, about in sorted(closure(extras).items()):
        told = licences(about)
        good = bool(told) and all(any(c.lower() in ALLOWED for c in k.split(" OR ")) for k in told)
        bad += not good
        print(f"{name} {about.version}: {', '.join(told) or 'unknown'}{'' if good else '   <- not in the list'}")
    print(f"{bad} licences to look at" if bad else "all licences are in the list")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or EXTRAS))
