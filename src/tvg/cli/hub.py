"""A model hub on this machine, and a model with random weights for it: the papers' weights rehearsed without them."""

import argparse
import logging
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from tvg.cli.shared import Arguments, Declare, say
from tvg.errors import TvgError

log = logging.getLogger(__name__)


def add(declare: Declare) -> None:
    parser = declare(
        replica, "write random weights in the shape and the files of Qwen2.5-VL-3B-Instruct, 7.5 GB", "data/hub"
    )
    parser.add_argument("folder", type=Path, help="the root of all repositories; one that is there is kept")
    parser = declare(
        hub, "serve a folder of models as huggingface.co does",
        "data/hub --for hf download tvg/qwen2.5-vl-3b-shape --revision 0123456789abcdef0123456789abcdef01234567",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, help="owner/name/revision/ lie in it, as `tvg replica` writes them")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--for", dest="command", nargs=argparse.REMAINDER, metavar="COMMAND",
        help="run it with HF_ENDPOINT set to this hub, and end with it; the last option",
    )  # fmt: skip


def replica(a: Arguments) -> None:
    from tvg.model import replica

    say(str(replica.write(a.folder)))


def hub(a: Arguments) -> int:
    from tvg.hub import Hub

    with Hub(a.folder, a.port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        log.info("serving %s at %s", a.folder, server.url)
        try:
            return _wait(a.command, server.url) if a.command else _forever()
        finally:
            server.shutdown()


def _wait(command: list[str], url: str) -> int:
    """The command's exit status. It ends in its own time on a signal: it may have something to save."""
    if shutil.which(command[0]) is None:
        raise TvgError(
            "--for", "no such command", got=command[0], expected="a program on the PATH", hint="activate .venv first"
        )
    beyond = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1")))
    own = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "no_proxy": beyond}
    with subprocess.Popen(command, env={**os.environ, **own}) as child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal has told the command too
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        code = child.wait()
    return code if code >= 0 else 128 - code


def _forever() -> int:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return 0
