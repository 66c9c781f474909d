"""How long a decision takes in Push: milliseconds of CPU for one environment and for 32, per policy, with untrained weights.

    OMP_NUM_THREADS=1 python tests/benchmarks/push_policies.py

`plan` is a call in which every environment needs a new plan; `step` is what that costs for each step played, since a plan lasts
for `execute` steps. Each is the fastest of several calls, because other processes slow the rest. The last column is the ratio of
32 single environments to 32 at once.
"""

from __future__ import annotations

import argparse
import time

import torch
from hydra import compose, initialize_config_dir

from conf.check import typed
from policies.base import Policy
from policies.noise import Noise

ROOT = __file__.rpartition("/tests/")[0]
WARM = 2  # calls that are not counted
LANES = (1, 32)
IN_CONTEXT = ("ad", "compressed_ad")  # from state alone; they decide anew in every step
# name -> the command line that makes it. Heads on cached features act from images as all others do.
POLICIES = {
    "bc_mlp": ("experiment=bc_push",),
    "bc_mlp, resnet18": ("experiment=bc_push", "policy.encoder.image=resnet18"),
    "bc_gru": ("policy=bc_gru", "env=push", "policy.encoder.join=concat", "policy.hidden_dim=512"),
    "act": ("experiment=act_push", "init_from=null", "trainer.cache_features=false"),
    "act, write-up 004's size": ("experiment=seed_004_act",),
    **{
        f"diffusion_unet, {steps} steps": (
            "experiment=diffusion_push",
            "init_from=null",
            "trainer.cache_features=false",
            f"policy.denoise_steps={steps}",
        )
        for steps in (1, 2, 4, 10)
    },
    **{
        f"masked_dit, {steps} rounds": (
            "experiment=masked_dit_push",
            "init_from=null",
            "trainer.cache_features=false",
            f"policy.denoise_steps={steps}",
        )
        for steps in (1, 6, 12)  # of 12 slots
    },
    "bc_mlp, language": ("experiment=language_push",),
    **{name: (f"policy={name}", "env=push", "env.image=false", "env.data.source=annealed_expert") for name in IN_CONTEXT},
}


@torch.inference_mode()
def milliseconds(policy: Policy, spaces, lanes: int, calls: int) -> float:
    """CPU time of a call of `act` at the beginning of an episode, where every lane needs a plan. (A policy that learns in context
    attends to its whole cache from the first step on.)"""
    seen = spaces.observation
    observation = {name: torch.from_numpy(space.sample())[None].repeat_interleave(lanes, 0) for name, space in seen.items()}
    if policy.memory_scope == "history":
        idle = torch.zeros(lanes, *spaces.action.shape)
        observation |= {
            "first": torch.ones(lanes, dtype=torch.bool),
            "previous_action": idle,
            "previous_reward": torch.zeros(lanes),
        }
    took = []
    for call in range(WARM + calls):
        memory, noise = policy.start(lanes, torch.device("cpu")), Noise(0, call, torch.arange(lanes))
        began = time.process_time()
        policy.act(observation, memory, noise, greedy=True)
        took.append(1000 * (time.process_time() - began))
    return min(took[WARM:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'one thread':26} {'parameters':>12} {'plan, 1':>9} {'plan, 32':>9} {'step, 1':>9} {'step, 32':>9}  ratio")
    with initialize_config_dir(f"{ROOT}/conf", version_base="1.3"):
        for name in arguments.policies:
            request = typed(compose("config", [*POLICIES[name], "device=cpu"], return_hydra_config=True))
            spaces = request.targets["env"](request.env).spaces
            torch.manual_seed(0)
            policy = request.targets["policy"](request.policy, spaces).eval()
            plan = [milliseconds(policy, spaces, lanes, arguments.calls) for lanes in LANES]
            step = [value / getattr(request.policy, "execute", 1) for value in plan]
            numbers = " ".join(f"{value:9.2f}" for value in (*plan, *step))
            print(
                f"{name:26} {sum(p.numel() for p in policy.parameters()):12,} {numbers}  {32 * plan[0] / plan[1]:.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
