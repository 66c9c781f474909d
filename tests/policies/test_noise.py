import torch

from policies.noise import Noise, fold, shared_uniform


def test_a_row_draws_the_same_however_the_batch_is_cut():
    rows = torch.arange(100)
    whole = Noise(3, 7, rows).uniform(5, 2)
    assert torch.equal(whole[40:60], Noise(3, 7, rows[40:60]).uniform(5, 2))
    assert torch.equal(whole[40:60], Noise(3, 7, rows)[rows[40:60]].uniform(5, 2))
    assert torch.equal(whole, Noise(3, torch.full((100,), 7), rows).uniform(5, 2))


def test_a_step_in_a_tensor_draws_what_its_number_draws():
    rows = torch.arange(100)
    number, tensor = Noise(3, 7, rows), Noise(3, torch.tensor(7), rows, 7)
    assert torch.equal(number.uniform(5), tensor.uniform(5))
    assert number.shared_uniform() == tensor.shared_uniform() == shared_uniform(3, 7)


def test_seed_step_row_and_call_all_change_the_draw():
    rows = torch.arange(50)
    noise = Noise(0, 0, rows)
    draws = [noise.uniform(4), noise.uniform(4)]
    draws += [Noise(1, 0, rows).uniform(4), Noise(0, 1, rows).uniform(4), Noise(0, 0, rows + 1).uniform(4)]
    for i, one in enumerate(draws):
        for other in draws[i + 1 :]:
            assert (one == other).float().mean() < 0.01


def test_draws_are_uniform_and_uncorrelated():
    draw = Noise(0, 0, torch.arange(20_000)).uniform(10)  # 200,000 numbers: standard errors of .0006 and .002
    assert draw.min() >= 0 and draw.max() < 1
    assert abs(draw.mean() - 0.5) < 0.004
    assert abs(draw.std() - 12**-0.5) < 0.004
    shares = torch.histc(draw, 20, 0, 1) / draw.numel()
    assert (shares - 0.05).abs().max() < 0.004
    correlation = torch.corrcoef(draw.T) - torch.eye(10)
    assert correlation.abs().max() < 0.04
    neighbours = torch.corrcoef(torch.stack([draw[:-1, 0], draw[1:, 0]]))[0, 1]
    assert abs(neighbours) < 0.04


def test_normal_and_categorical_follow_their_distributions():
    noise = Noise(0, 0, torch.arange(50_000))
    normal = noise.normal(2)
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    share = torch.tensor([0.05, 0.25, 0.7])
    drawn = noise.categorical(share.log().expand(50_000, 3))
    assert (torch.bincount(drawn, minlength=3) / 50_000 - share).abs().max() < 0.01
    impossible = torch.tensor([0.0, -torch.inf, 0.0]).expand(50_000, 3)
    assert not (noise.categorical(impossible) == 1).any()


def test_fold_tells_its_arguments_apart():
    seeds = {fold(a, b) for a in range(100) for b in range(100)}
    assert len(seeds) == 10_000
    assert min(seeds) >= 0
