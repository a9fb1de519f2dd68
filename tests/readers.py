"""Readers for the process of `landscape.storage.apart`, which imports this file."""

import os
import time

from landscape import InputError


def doubled(file, *_):
    yield bytes(file)
    yield bytes(file) * 2


def crashing(file, number):
    yield b"some"
    os.kill(os.getpid(), number)


def greedy(file):
    yield bytes(bytearray(2**33))


def endless(file):
    while True:
        yield bytes(2**24)


def refusing(file):
    yield b"some"
    raise InputError("row 3 is not a row")


def failing(file):
    yield b"some"
    raise KeyError("a\nb")


def waiting(file):
    """Do nothing, as on a network disk that does not answer."""
    yield b"some"
    time.sleep(600)


def talkative(file):
    print("said")
    os.write(1, b"more")
    yield bytes(file)
