"""Packets on their way along synapses: kept in a heap by when they are due."""

import math

from adjsnn.equations.cpu.names import FIRSTS, KINDS, delay_place, packets_of


def before(due, k, n):
    """Whether packet k comes before packet n; of those due at once, the one that was sent first."""
    return due[k] < due[n] or (due[k] == due[n] and k < n)


def push(heap, size, due, k):
    """Put packet k among the `size` packets of a heap."""
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if not before(due, k, heap[parent]):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = k


def pop(heap, size, due):
    """Take the first of the `size` packets of a heap out of it."""
    first, last, place = heap[0], heap[size - 1], 0
    while True:
        child = 2 * place + 1
        if child >= size - 1:
            break
        if child + 1 < size - 1 and before(due, heap[child + 1], heap[child]):
            child += 1
        if not before(due, heap[child], last):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = last
    return first


def next_due(heap, size, due):
    """When the next packet is due."""
    return due[heap[0]] if size > 0 else math.inf


def send(guard, row, t, values, sent, due, heap, number, size):
    """Send what the event of a guard sends; returns the numbers of packets sent in all and on their way."""
    for s in range(KINDS):
        for i in range(packets_of(s, guard, values.wiring)):
            j = guard - FIRSTS[s]
            sent[number, 0], sent[number, 1], sent[number, 2], sent[number, 3] = s, j, i, row
            due[number] = t + values.p[delay_place(s, j, i, values.wiring)]
            push(heap, size, due, number)
            number += 1
            size += 1
    return number, size
