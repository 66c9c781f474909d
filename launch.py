"""Train, evaluate or sweep any policy in any environment: `python launch.py --help`."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from conf import help, terminal
from conf.errors import BadRequest, Exit
from conf.ranks import here

if TYPE_CHECKING:  # Hydra takes .2 s to import, which --help does not need
    from omegaconf import DictConfig

# Read by PyTorch: deterministic matrix products on CUDA, and the CPU for what MPS cannot do.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
# On Linux, large tensors lie in large pages: making many pages of 4 kB takes time in each step on a CPU.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

exit_codes: list[int] = []  # one for each run that began in this process; Hydra drops what `main` returns


def main(cfg: DictConfig) -> float | None:
    """What a sweeper that searches wants to know of the run: the best score on the val split."""
    from hydra.core.hydra_config import HydraConfig

    from conf import folder, internals
    from conf.check import typed
    from conf.sentences import report

    exit_codes.append(Exit.FAILED)  # until it ends otherwise
    place = Path(HydraConfig.get().runtime.output_dir)
    alone = internals.is_single(HydraConfig.get()) and not (place / "config.yaml").exists()
    try:
        request = typed(cfg)
        if here().rank == 0:
            folder.refuse_other_run(place, request.config, internals.has_our_folder(HydraConfig.get()))
            folder.describe(place, request.config, HydraConfig.get().overrides.task)
        from sweeps import trials
        from trainers import run  # torch comes with it

        exit_codes[-1] = run.main(request, place, trials.pruner(place))
        return trials.objective(place)
    except (BadRequest, OSError) as error:
        exit_codes[-1] = report(error)
        if alone and isinstance(error, BadRequest) and here().rank == 0:
            folder.withdraw(place)
    return None


def launch() -> int:
    terminal.prepare()
    try:
        if help.asked(sys.argv[1:]):
            help.show(sys.argv[1:])
            return Exit.DONE
        return compose_and_run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return Exit.FAILED


def compose_and_run() -> int:
    """Everything but the help: with Hydra."""
    import hydra

    from conf import again, completion, internals, version
    from conf.sentences import report

    internals.take_over()
    try:
        if "--version" in sys.argv:
            print(version.version_line())
            return Exit.DONE
        if completion.asked(sys.argv) and (found := completion.suggestions(os.environ.get("COMP_LINE", ""))):
            print(" ".join(found))
            return Exit.DONE
        if sys.argv[1:2] == ["--together"]:  # written by sweeps/together.py
            from sweeps import together

            return together.main(sys.argv[2])
        # Hydra's parser takes flags before the overrides or after them; people write them as they come.
        words = sorted(sys.argv[1:], key=lambda word: word[:1] in "+~" or ("=" in word and word[:1] != "-"))
        internals.refuse_flags(words)
        sys.argv[1:] = again.with_its_own(words)
        place = str(Path(__file__).parent.resolve() / "conf")
        hydra.main(version_base="1.3", config_path=place, config_name="config")(main)()
        sys.stdout.flush()
    except Exception as error:
        if exit_codes:  # a run had begun, so the request was good
            raise
        return report(error)
    return max(exit_codes, default=Exit.DONE)


def leave(code: int) -> NoReturn:
    """End this process without the .3 s in which Python would take PyTorch apart."""
    if threading.active_count() == 1:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    try:
        leave(launch())
    except SystemExit as exit:
        if isinstance(exit.code, int):
            leave(exit.code)
        raise
