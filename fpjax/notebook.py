"""A widget for notebooks (the extra ``fpjax[notebook]``): an audit or a study as it runs.

    live = fpjax.notebook.Live()
    display(live)
    report = fpjax.audit(den, process, images=x, condition=c, progress=live.progress)

    fpjax.notebook.watch("study.sqlite")  # shows a study that runs in another process

In this room: traits and a thread that looks. What is drawn: ``notebook.js`` beside this file.
"""

import threading
import time
from importlib import resources
from pathlib import Path
from typing import Any

from fpjax.evidence import FpjaxError
from fpjax.study.watching import STYLES, Seen, Watcher

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise FpjaxError("the notebook widget needs anywidget: pip install 'fpjax[notebook]'") from error


class Live(anywidget.AnyWidget):
    """What is being done and how far it is, as a bar; for studies also the verdicts so far.

    Attributes:
      state: ``done``, ``total``, ``what``, ``lines`` (model, process, guidance and verdict counts), ``failures``.
    """

    _esm = resources.files("fpjax").joinpath("notebook.js").read_text()
    state = traitlets.Dict({"done": 0, "total": 0, "what": "waiting", "lines": [], "failures": []}).tag(sync=True)

    def progress(self, done: int, total: int, what: str) -> None:
        """The ``progress`` argument of :func:`fpjax.audit`."""
        self.state = {**self.state, "done": done, "total": total, "what": what}

    def show(self, seen: Seen) -> None:
        """A study as :class:`fpjax.study.watching.Watcher` sees it."""
        self.state = study_state(seen)


def study_state(seen: Seen) -> dict[str, Any]:
    """The widget's state as plain data."""
    lines = [
        {
            "name": f"{model}, {process}, guidance {w:g}",
            "counts": {q: {v: n for v in STYLES if (n := found[v])} for q, found in line.items()},
        }
        for (model, process, w), line in seen.verdicts.items()
    ]
    t = seen.tally
    what = f"cells ({t.failed} failed)" if t.open else f"finished ({t.failed} failed)"
    return {"done": t.done + t.failed, "total": t.cells, "what": what, "lines": lines, "failures": seen.failures}


def watch(path: str | Path, every: float = 1.0) -> Live:
    """A widget that follows a study until it has ended.

    Args:
      path: STUDY.sqlite. every: seconds between two looks.

    Raises:
      FpjaxError: if there is no study.
    """
    watcher, live = Watcher(path), Live()
    live.show(watcher.look())

    def follow() -> None:
        while watcher.look().tally.open:
            live.show(watcher.look())
            time.sleep(every)
        live.show(watcher.look())

    threading.Thread(target=follow, daemon=True).start()
    return live
