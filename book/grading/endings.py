"""How a grading ends before its end: by Ctrl-C, by a closed terminal, by a `kill`."""

import queue
import signal
import threading

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(SystemExit):
    """A signal that ends this process; what was begun is tidied up on the way out."""


class Endings:
    """As a context manager: a signal to end becomes an exception, so that sandboxes and their
    folders go too, and a second one does not disturb the tidying. While something listens to
    `arrivals`, the signal is put there instead: an exception at any point might hold a lock.
    """

    def __init__(self):
        self.arrivals: queue.SimpleQueue | None = None
        # what nohup and the like have told this process to ignore stays ignored
        handlers = {number: signal.getsignal(number) for number in ENDINGS}
        self.before = {n: told for n, told in handlers.items() if told is not signal.SIG_IGN}

    def _end(self, number: int, frame) -> None:
        for other in self.before:
            signal.signal(other, signal.SIG_IGN)
        if self.arrivals is None:
            raise Ended(128 + number)
        self.arrivals.put(Ended(128 + number))

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            self.before = {}  # only the main thread may listen to signals
        for number in self.before:
            signal.signal(number, self._end)
        return self

    def __exit__(self, *_):
        for number, told in self.before.items():
            signal.signal(number, told)
