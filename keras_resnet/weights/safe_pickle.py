"""Reads pickles without Python's unpickler: a small stack machine that runs nothing.

`pickle.Unpickler` imports and calls what the file names, hashes what it holds and allocates what
it claims. Here each opcode is one step on plain lists and dicts, and names are looked up in the
caller's table, so that a hostile file can at worst be refused.
"""

import pickletools

from keras_resnet.weights.errors import UnsafeFile

# An honest checkpoint of the deepest network takes some 30,000 steps, with its optimizer 100,000.
MAX_STEPS = 400_000
MAX_BYTES = 16 * 2**20  # of one pickle; the numbers of the tensors are outside of it
MAX_LINE = 1024  # of a global's name
MAX_NAME = 1024  # characters of a key

PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}


class Inert:
    """Stands for an object that the reader has no use for; takes any arguments, does nothing."""

    def __call__(self, *args):
        """Returns itself, whatever it is called with."""
        return self

    def set_state(self, state):
        """Forgets the state."""


class Unpickler:
    """Reads the pickles that follow one another in a buffer, and the bytes between them.

    Args:
        view: memoryview of the file.
        find_global: Function from a global's dotted name to a callable that is safe with any
            arguments; raises `UnsafeFile` for a name that is not allowed.
        persistent_load: Function from a persistent id, any object, to what it stands for.
    """

    def __init__(self, view, find_global, persistent_load):
        self.view = view
        self.find_global = find_global
        self.persistent_load = persistent_load
        self.position = 0
        self.steps = 0
        self.end = len(view)

    def load(self):
        """Reads the pickle at `position` and leaves `position` behind it.

        Returns:
            The object: dicts with strings as keys, lists, tuples, numbers, strings, bytes, and
            whatever the two functions return.

        Raises:
            UnsafeFile: whatever is wrong with the pickle.
        """
        self.end = min(self.position + MAX_BYTES, len(self.view))
        try:
            return self._run()
        except UnsafeFile:
            raise
        # What pickletools and the steps below raise on bytes that are no pickle.
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise UnsafeFile(f"it is not a pickle, or a damaged one ({error})") from error
        finally:
            self.end = len(self.view)

    # The three methods that pickletools.genops asks of a file.

    def read(self, size):
        """Up to `size` of the next bytes."""
        content = bytes(self.view[self.position : min(self.position + size, self.end)])
        self.position += len(content)
        return content

    def readline(self):
        """The next bytes up to a newline."""
        line, newline, _ = bytes(self.view[self.position : self.end][:MAX_LINE]).partition(b"\n")
        if not newline or b"\\" in line:
            raise UnsafeFile("it names something that is no name")
        self.position += len(line) + 1
        return line + newline

    def tell(self):
        """Where the next byte is."""
        return self.position

    def _count(self, steps):
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise UnsafeFile(f"its pickles take more than {MAX_STEPS} steps")

    def _run(self):
        stack, marks, memo = [], [], {}

        def since_mark():
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        for opcode, arg, _ in pickletools.genops(self):
            name = opcode.name
            self._count(1)
            if name == "STOP":
                return stack.pop()
            if name in PUSHED:
                stack.append(arg)
            elif name in CONSTANTS:
                stack.append(CONSTANTS[name])
            elif name in TUPLES:
                size = TUPLES[name]
                stack[len(stack) - size :] = [tuple(_top(stack, size))]
            elif name == "EMPTY_DICT":
                stack.append({})
            elif name == "EMPTY_SET":
                stack.append(Inert())
            elif name == "ADDITEMS":
                since_mark()
            elif name == "FROZENSET":
                since_mark()
                stack.append(Inert())
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "MARK":
                marks.append(len(stack))
            elif name == "TUPLE":
                stack.append(tuple(since_mark()))
            elif name == "LIST":
                stack.append(since_mark())
            elif name == "DICT":
                stack.append(make_dict(_pairs(since_mark())))
            elif name in ("BINPUT", "LONG_BINPUT"):
                if arg > MAX_STEPS:  # honest ones are counted up from 0
                    raise UnsafeFile("it numbers what it repeats in an odd way")
                memo[arg] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[arg])
            elif name in ("SETITEM", "SETITEMS"):
                pairs = _pairs(since_mark() if name == "SETITEMS" else _pop(stack, 2))
                _of_type(stack[-1], dict).update(make_dict(pairs))
            elif name in ("APPEND", "APPENDS"):
                items = since_mark() if name == "APPENDS" else _pop(stack, 1)
                _of_type(stack[-1], list).extend(items)
            elif name == "GLOBAL":
                stack.append(self.find_global(arg.replace(" ", ".", 1)))
            elif name == "STACK_GLOBAL":
                module, attribute = _pop(stack, 2)
                dotted = f"{_of_type(module, str)}.{_of_type(attribute, str)}"
                stack.append(self.find_global(dotted))
            elif name in ("REDUCE", "NEWOBJ"):
                function, args = _pop(stack, 2)
                # A call may look at every item of its arguments, and they can be used again.
                self._count(sum(map(_length, _of_type(args, tuple))) + len(args))
                stack.append(function(*args))
            elif name == "BUILD":
                state = stack.pop()
                if hasattr(stack[-1], "set_state"):
                    stack[-1].set_state(state)
            elif name == "BINPERSID":
                stack.append(self.persistent_load(stack.pop()))
            elif name == "POP":
                stack.pop()
            elif name not in IGNORED:
                raise UnsafeFile(f"it uses the opcode {name}, which no checkpoint needs")
        raise UnsafeFile("it ends early")


def make_dict(pairs):
    """A dict of the pairs whose keys can be names; nothing else is looked for.

    Other keys can be made to take for ever: tuples to hash, numbers to tell apart.
    """
    return {key: value for key, value in pairs if isinstance(key, str) and len(key) <= MAX_NAME}


def _pairs(items):
    if len(items) % 2:
        raise UnsafeFile("it has a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


def _length(value):
    return len(value) if isinstance(value, list | tuple | dict) else 1


def _top(stack, size):
    if len(stack) < size:
        raise UnsafeFile("it takes more from its stack than there is")
    return stack[len(stack) - size :]


def _pop(stack, size):
    items = _top(stack, size)
    del stack[len(stack) - size :]
    return items


def _of_type(value, expected):
    if not isinstance(value, expected):
        raise UnsafeFile(f"it uses a {type(value).__name__} as a {expected.__name__}")
    return value
