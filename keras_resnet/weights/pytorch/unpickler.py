"""Reads pickles without Python's unpickler, with a small stack machine that executes nothing.

`pickle.Unpickler` imports and calls the objects that a file refers to, hashes its content, and
allocates as much as it declares. Here, each opcode is an operation on plain lists and dicts.
Globals are looked up in the caller's table; any other becomes an inert `Opaque`. The machine has no
operation that imports, or that calls anything but the functions in the table.
"""

import pickletools
from collections.abc import Callable, Iterable
from typing import IO, Any, Self, cast

from keras_resnet.weights.errors import UnsafeFileError

# A checkpoint of the deepest network takes about 30,000 steps, with the optimizer 100,000.
MAX_STEPS = 400_000
MAX_BYTES = 16 * 2**20  # of one pickle, which does not include the tensors' data
MAX_LINE = 1024  # of a global's name
MAX_NAME = 1024  # characters of a key


class Opaque:
    """Placeholder for an object that weights do not need: never imported, called or rebuilt.

    Args:
        name: Its dotted name in the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_module = False  # whether it got the state of an nn.Module

    def __call__(self, *args: Any) -> Self:
        """Returns itself."""
        for arg in args:
            self.set_state(arg)
        return self

    def set_state(self, state: Any) -> None:
        """Ignores the state, but records whether it is that of a module."""
        if isinstance(state, dict) and (state.get("_parameters") or state.get("_modules")):
            self.is_module = True


class Unpickler:
    """Reads consecutive pickles in a buffer, and the bytes between them.

    Args:
        view: The file.
        find_global: Function from the dotted name of a global to its replacement, which has to be
            safe to call with any arguments; None for unknown names, which become an `Opaque`.
        persistent_load: Function from a persistent id, any object, to its replacement.
        max_bytes: Maximum length of a pickle.
    """

    def __init__(
        self,
        view: memoryview,
        find_global: Callable[[str], Any],
        persistent_load: Callable[[Any], Any],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.view = view
        self.find_global = find_global
        self.persistent_load = persistent_load
        self.max_bytes = max_bytes
        self.passed_over: dict[str, Opaque] = {}  # by name
        self.position = 0
        self.steps = 0
        self.end = len(view)

    def load(self) -> Any:
        """Reads the pickle at `position`, and moves `position` to its end.

        Returns:
            The object: dicts with strings as keys, lists, tuples, numbers, strings, bytes, results
            of the two functions, and an Opaque for anything else.

        Raises:
            UnsafeFileError: if the pickle is damaged or not supported.
        """
        self.end = min(self.position + self.max_bytes, len(self.view))
        try:
            return self._run()
        except UnsafeFileError:
            raise
        # Raised by pickletools and the operations below if the bytes are not a pickle.
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise UnsafeFileError(f"it is not a pickle, or a damaged one ({error})") from error
        finally:
            self.end = len(self.view)

    # The three methods of a file that pickletools.genops needs.

    def read(self, size: int) -> bytes:
        """Returns up to `size` of the next bytes."""
        content = bytes(self.view[self.position : min(self.position + size, self.end)])
        self.position += len(content)
        return content

    def readline(self) -> bytes:
        """Returns the next bytes up to a newline."""
        line, newline, _ = bytes(self.view[self.position : self.end][:MAX_LINE]).partition(b"\n")
        if not newline or b"\\" in line:
            raise UnsafeFileError("it has an invalid global name")
        self.position += len(line) + 1
        return line + newline

    def tell(self) -> int:
        """Returns the position of the next byte."""
        return self.position

    def count(self, steps: int) -> None:
        """Counts steps; raises an error if there are too many."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise UnsafeFileError(f"its pickles take more than {MAX_STEPS} steps")

    def _run(self):
        machine = _Machine(self)
        # genops only needs read, readline and tell.
        for opcode, arg, _ in pickletools.genops(cast(IO[bytes], self)):
            self.count(1)
            if opcode.name == "STOP":
                return machine.stack.pop()
            step = STEPS.get(opcode.name)
            if step is None:
                raise UnsafeFileError(
                    f"it uses the opcode {opcode.name}, which no checkpoint needs"
                )
            step(machine, arg)
        raise UnsafeFileError("it ends early")


class _Machine:
    """The state of reading one pickle: a stack, the positions of marks in it, and the memo."""

    def __init__(self, unpickler: Unpickler):
        self.unpickler = unpickler
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def push(self, value):
        self.stack.append(value)

    def pop(self, size):
        if len(self.stack) < size:
            raise UnsafeFileError("it pops from an empty stack")
        return self._cut(len(self.stack) - size)

    def since_mark(self):
        return self._cut(self.marks.pop())

    def _cut(self, start):
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, number):
        if number > MAX_STEPS:  # valid ones are consecutive, from 0
            raise UnsafeFileError("it has an invalid memo index")
        self.memo[number] = self.stack[-1]

    def update(self, items):
        pairs = _pairs(items)
        if not isinstance(self.stack[-1], Opaque):
            _of_type(self.stack[-1], dict).update(make_dict(pairs))

    def extend(self, items):
        if not isinstance(self.stack[-1], Opaque):
            _of_type(self.stack[-1], list).extend(items)

    def find(self, dotted):
        found = self.unpickler.find_global(dotted)
        if found is None:
            found = self.unpickler.passed_over.setdefault(dotted, Opaque(dotted))
        self.push(found)

    def find_on_stack(self):
        module, attribute = (_of_type(part, str) for part in self.pop(2))
        if len(module) + len(attribute) > MAX_LINE:  # before they are joined
            raise UnsafeFileError("it has an invalid global name")
        self.find(f"{module}.{attribute}")

    def call(self):
        function, args = self.pop(2)
        # A call may iterate over its arguments, which can be reused many times.
        self.unpickler.count(sum(map(_length, _of_type(args, tuple))) + len(args))
        self.push(function(*args))

    def pass_over(self, items):
        """Handles opcodes that create objects of unknown classes only."""
        self.push(_of_type(items[0], Opaque)(*items[1:]))

    def build(self):
        state = self.stack.pop()
        if hasattr(self.stack[-1], "set_state"):
            self.stack[-1].set_state(state)

    def load_persistent(self):
        self.push(self.unpickler.persistent_load(self.stack.pop()))


# The effect of each opcode, given its argument; any other opcode is an error.
PUSHED = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)
STEPS: dict[str, Callable] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    **dict.fromkeys(PUSHED, lambda m, arg: m.push(arg)),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "DICT": lambda m, _: m.push(make_dict(_pairs(m.since_mark()))),
    "SETITEM": lambda m, _: m.update(m.pop(2)),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    "EMPTY_SET": lambda m, _: m.push(Opaque("set")),
    "ADDITEMS": lambda m, _: m.since_mark(),
    "FROZENSET": lambda m, _: m.push(Opaque("frozenset")(m.since_mark())),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.since_mark(),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, number: m.put(number)),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, number: m.push(m.memo[number])),
    "GLOBAL": lambda m, name: m.find(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda m, _: m.find_on_stack(),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call()),
    "NEWOBJ_EX": lambda m, _: m.pass_over(m.pop(3)),
    "OBJ": lambda m, _: m.pass_over(m.since_mark()),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.load_persistent(),
}


def make_dict(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Makes a dict of the pairs whose keys are strings; others are not needed.

    Other keys could be made to take forever: tuples to hash, numbers to compare.
    """
    return {key: value for key, value in pairs if isinstance(key, str) and len(key) <= MAX_NAME}


def _pairs(items):
    if len(items) % 2:
        raise UnsafeFileError("it has a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


def _length(value):
    return len(value) if isinstance(value, list | tuple | dict) else 1


def _of_type(value, expected):
    if not isinstance(value, expected):
        raise UnsafeFileError(f"it uses a {type(value).__name__} as a {expected.__name__}")
    return value
