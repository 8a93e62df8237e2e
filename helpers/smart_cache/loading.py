"""Loading items: several at the start, then one after another in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import lists, verdicts
from helpers.errors import CourseDataError
from helpers.lists import files_of
from helpers.smart_cache import kept

IMAGE = ("image",)  # the path of that field
OTHERWISE = "repair the item or leave it out, then make the cache anew"
LOOK_AGAIN_S = 1.0  # where a call to go on may have been missed


class Source:
    """Items and what loads them; every error names the item.

    Args:
        items: of the set.
        load: gives an item's element.
        names: of the items, or None.
        form: of the elements, or None to take it from those of `first`.
    """

    def __init__(
        self, items: Sequence, load: Callable, names: Sequence | None, form: kept.Form | None
    ) -> None:
        self.items, self._load, self._names, self.form = items, load, names, form

    def first(self, numbers: Sequence[int], workers: int) -> list[dict]:
        """The elements of some items, loaded by several threads.

        Args:
            numbers: of the items.
            workers: threads.

        Raises:
            CourseDataError: the error of the first of these items that has one.
        """
        with ThreadPoolExecutor(workers, "SmartCache") as pool:
            elements = list(pool.map(self._read, numbers))  # an error calls off the rest
        if self.form is not None:
            elements = [kept.conformed(self.form, element) for element in elements]
            for number, element in zip(numbers, elements, strict=True):
                self._check(number, element)
            return elements
        self.form = self._form(elements)
        elements = [kept.conformed(self.form, element) for element in elements]
        for number, element in zip(numbers, elements, strict=True):
            self._check(number, element, ranks_only=True)
            self.form = kept.widened(self.form, element)
        return elements

    def element(self, number: int) -> dict:
        """The element of an item.

        Raises:
            CourseDataError: the loader's own, or `LOADING_FAILED`; `SHAPE_MISMATCH` for a shape
                that does not fit the others.
        """
        element = kept.conformed(self.form, self._read(number))
        self._check(number, element)
        return element

    def _form(self, elements: Sequence[dict]) -> kept.Form:
        """The form of the first element, with a dtype that holds all images."""
        form, forms = kept.form_of(elements[0]), map(kept.form_of, elements)
        dtypes = [one[IMAGE][0] for one in forms if IMAGE in one]
        if IMAGE in form and all(dtype.kind in "iuf" for dtype in dtypes):
            form[IMAGE] = (lists.common_dtype(self.items, dtypes), form[IMAGE][1])
        return form

    def _read(self, number: int) -> dict:
        try:
            return kept.kept(self._load(self.items[number]))
        except CourseDataError as error:
            raise self._named(number, error.code, error.message, error.files) from error
        except BaseException as error:  # whatever a loader may raise; a thread must not vanish
            about = f"the loader raised {verdicts.cause(error)}; {OTHERWISE}"
            raise self._named(number, "LOADING_FAILED", about) from error

    def _check(self, number: int, element: Mapping, ranks_only: bool = False) -> None:
        wrong = kept.misfit(self.form, element, ranks_only=ranks_only)
        if wrong is None:
            return
        code, about = wrong
        cure = "let the loader give all items the same fields and dtypes"
        if code == "SHAPE_MISMATCH":
            cure = "crop or pad in the loader, or give SmartCache an element_spec with None there"
        raise self._named(number, code, f"{about}; {cure}")

    def _named(self, number: int, code: str, about: str, files: Sequence[Path] = ()):
        name = f"items[{number}]"
        if self._names is not None:
            name += f" ({self._names[number]})"
        else:
            files = files or files_of(self.items[number], text=True)
        return CourseDataError(code, f"{name}: {about}", files)


class Ahead:
    """A thread that loads the next elements, no more than are exchanged at a time.

    It knows nothing of the cache, so that a cache that nobody holds any more can go, and take the
    thread with it.

    Args:
        read: gives the element at a position of the circle, which is counted on without end.
        position: of the first.
        count: elements at a time.
    """

    def __init__(self, read: Callable[[int], dict], position: int, count: int) -> None:
        # Reentrant: collecting garbage may call `stop` in a thread that holds it already.
        self.lock = threading.Condition(threading.RLock())
        self._read, self._position, self._count = read, position, count
        self._loaded: list[dict] = []
        self._left: list[dict] = []
        self._failure: CourseDataError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="SmartCache", daemon=True)
        if count:
            self._thread.start()

    def wait(self) -> list[dict]:
        """Wait for the next elements, with `lock` held.

        Raises:
            CourseDataError: what the loader raised.
            ValueError: after `stop`.
        """
        self.lock.wait_for(
            lambda: self._closed or self._failure or len(self._loaded) == self._count
        )
        if self._closed:
            raise ValueError("the cache is closed, so nothing can enter it")
        if self._failure is not None:
            told = self._failure
            raise CourseDataError(told.code, told.message, told.files) from told.__cause__
        return self._loaded

    def go_on(self, left: list[dict]) -> None:
        """Load the next ones, with `lock` held; `left` is forgotten in the background first."""
        self._loaded, self._left = [], left
        self.lock.notify_all()

    def stop(self) -> None:
        """End the thread, as soon as the loader returns."""
        with self.lock:
            self._closed = True
            self._loaded, self._left = [], []
            self.lock.notify_all()

    def join(self, longest_s: float) -> None:
        """Wait until the thread has ended, but not too long."""
        if self._count and self._thread is not threading.current_thread():
            self._thread.join(longest_s)

    def _wait_for_room(self) -> None:
        """Wait until there is something to do, with `lock` held."""
        # Garbage may be collected, and `stop` be called, in this very thread after it has looked
        # and before it waits. That wakes nobody: so it looks again from time to time.
        while not (self._closed or len(self._loaded) < self._count):
            self.lock.wait(LOOK_AGAIN_S)

    def _run(self) -> None:
        while True:
            with self.lock:
                self._wait_for_room()
                if self._closed:
                    return
                left, self._left = self._left, []
            left.clear()  # before there are others in memory; pages given back take a while
            try:
                element = self._read(self._position)
            except BaseException as error:  # a thread that vanished would be waited for for ever
                if not isinstance(error, CourseDataError):
                    told = CourseDataError(
                        "LOADING_FAILED", f"{verdicts.cause(error)}; {OTHERWISE}"
                    )
                    told.__cause__ = error
                    error = told
                with self.lock:
                    self._failure = error
                    self.lock.notify_all()
                return
            with self.lock:
                if self._closed:
                    return
                self._loaded.append(element)
                self._position += 1
                self.lock.notify_all()
            del element
