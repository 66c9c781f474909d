from envs.gym.family import Config, Gym

__all__ = ["Config", "Gym"]
