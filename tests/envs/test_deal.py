import numpy as np
import pytest

from envs.deal import Deal


def play(deal: Deal, order: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """The hands of every lane until all have run out; `order` shuffles which lane asks first, which must not matter."""
    hands: list[list[tuple[int, int, int]]] = [[] for _ in range(deal.num_envs)]
    for lane in order:
        while (hand := deal.next(np.array([lane]))).episode[0] >= 0:
            hands[lane].append((int(hand.episode[0]), int(hand.seed[0]), int(hand.task[0])))
    return hands


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_lane_k_plays_every_nth_seed_from_k(order):
    hands = play(Deal(3, seeds=np.array([10, 11, 12, 13, 14, 15, 16])), np.array(order))
    assert [[episode for episode, *_ in lane] for lane in hands] == [[0, 3, 6], [1, 4], [2, 5]]
    assert all(seed == task == 10 + episode for lane in hands for episode, seed, task in lane)


def test_a_task_is_played_several_times_in_a_row_by_one_lane():
    hands = play(Deal(2, tasks=np.array([70, 80, 90]), episodes_per_task=2, first=500), np.arange(2))
    assert hands[0] == [(0, 500, 70), (1, 501, 70), (4, 504, 90), (5, 505, 90)]
    assert hands[1] == [(2, 502, 80), (3, 503, 80)]


def test_tasks_and_seeds_can_both_be_listed():
    hands = play(Deal(2, seeds=np.arange(6) + 40, tasks=np.array([7, 8, 9]), episodes_per_task=2), np.arange(2))
    assert hands == [[(0, 40, 7), (1, 41, 7), (4, 44, 9), (5, 45, 9)], [(2, 42, 8), (3, 43, 8)]]


def test_a_lane_that_is_out_stays_out_until_the_restart():
    deal = Deal(4, seeds=np.array([5]))
    first = deal.next(np.arange(4))
    assert first.episode.tolist() == [0, -1, -1, -1] and first.seed.tolist() == [5, -1, -1, -1]
    assert deal.next(np.arange(4)).episode.tolist() == [-1] * 4
    deal.restart()
    assert deal.next(np.arange(4)).seed.tolist() == [5, -1, -1, -1]


def test_without_a_list_the_stream_is_endless_and_never_repeats():
    deal = Deal(3, first=1000)
    seeds = np.concatenate([deal.next(np.arange(3)).seed for _ in range(50)])
    assert sorted(seeds.tolist()) == list(range(1000, 1150))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"episodes_per_task": 0}, "episodes_per_task must be at least 1"),
        ({"seeds": np.array([], int)}, "seeds must name at least one"),
        ({"seeds": np.arange(3), "tasks": np.arange(2), "episodes_per_task": 2}, "2 tasks x 2 episodes = 4"),
    ],
)
def test_impossible_deals_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Deal(2, **wrong)
