"""Choosing cases: the next of each class in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def in_turn(queues: Iterable[Iterable[T]], wanted: Callable[[T], bool]) -> Iterator[tuple[T, int]]:
    """Take the next wanted element of each queue in turn, until all are empty.

    Args:
        queues: the elements in the order in which they are taken.
        wanted: whether an element is taken when its turn comes; one that is not is passed over for good.

    Yields:
        an element, and the number of its queue, from 0.
    """
    turns = deque((iter(queue), number) for number, queue in enumerate(queues))
    while turns:
        queue, number = turns.popleft()
        element = next(filter(wanted, queue), None)
        if element is not None:
            yield element, number
            turns.append((queue, number))
