from envs.push.family import Config, Push

__all__ = ["Config", "Push"]
