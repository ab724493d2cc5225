"""The threads that answer requests."""

from concurrent.futures import ThreadPoolExecutor


class ThreadPool(ThreadPoolExecutor):
    """A pool that goes on with the threads that it has where the system grants no further one."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.submit(lambda: None).result()  # without a first thread nothing could be served

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # can't start new thread
            if not self._threads:
                raise
