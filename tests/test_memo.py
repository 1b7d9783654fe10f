import threading
import time

from jaxfer.memo import memoised


def test_threads_that_ask_at_once_get_one_value():
    made = []

    @memoised(4)
    def make(number):
        time.sleep(0.05)
        made.append(number)
        return object()

    found = []
    threads = [threading.Thread(target=lambda: found.append(make(3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [3] and len(set(map(id, found))) == 1


def test_the_oldest_value_leaves():
    made = []

    @memoised(2)
    def make(number):
        made.append(number)
        return number

    assert [make(number) for number in (1, 2, 3, 3, 1)] == [1, 2, 3, 3, 1]
    assert made == [1, 2, 3, 1]
    make.cache_clear()
    assert make(1) == 1 and made[-1] == 1 and len(made) == 5
