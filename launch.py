"""Train, evaluate or sweep any policy in any environment: `python launch.py --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra._internal import utils as hydra_internal
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from conf.check import typed
from conf.errors import BadRequest, Exit
from conf.folder import describe
from conf.sentences import report

# Read by PyTorch as it is imported: deterministic matrix products on CUDA, and the CPU for what MPS cannot do.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

exit_codes: list[int] = []  # one for each run that began in this process; Hydra drops what `main` returns


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent.resolve() / "conf"), config_name="config")
def main(cfg: DictConfig) -> None:
    exit_codes.append(Exit.FAILED)  # until it ends otherwise
    try:
        request, folder = typed(cfg), Path(HydraConfig.get().runtime.output_dir)
        describe(folder, request.config, HydraConfig.get().overrides.task)
        from trainers import run  # torch comes with it

        exit_codes[-1] = run.main(request, folder)
    except (BadRequest, OSError) as error:
        exit_codes[-1] = report(error)


def launch() -> int:
    # Hydra's parser takes flags before the overrides or after them; people write them as they come.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word[:1] in "+~" or ("=" in word and word[:1] != "-"))
    # Hydra prints what goes wrong and exits with 1. Here it becomes a sentence and an exit code, or a traceback if it is a fault.
    hydra_internal.run_and_report = lambda func: func()
    try:
        main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return Exit.FAILED
    except Exception as error:
        if exit_codes:  # a run had begun, so the request was good
            raise
        return report(error)
    return max(exit_codes, default=Exit.DONE)


if __name__ == "__main__":
    sys.exit(launch())
