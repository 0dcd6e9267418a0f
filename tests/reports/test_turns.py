from itertools import islice

from cleft_bundle.reports.turns import in_turn


def test_queues_take_turns_until_all_are_empty():
    queues = [[1, 2, 3], [], [4], [5, 6]]
    assert list(in_turn(queues, lambda _: True)) == [(1, 0), (4, 2), (5, 3), (2, 0), (6, 3), (3, 0)]


def test_what_is_not_wanted_any_more_costs_no_turn():
    taken = []
    for letter, number in islice(in_turn(["aab", "ac"], lambda letter: letter not in taken), 3):
        taken.append(letter)
        assert number == {"a": 0, "c": 1, "b": 0}[letter]
    assert taken == ["a", "c", "b"]
