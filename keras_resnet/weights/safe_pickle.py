"""Reads a pickle without Python's unpickler: a small stack machine that runs nothing.

`pickle.Unpickler` imports and calls what the file names, hashes what it holds and allocates what
it claims. Here each opcode is one step on plain lists and dicts, and names are looked up in the
caller's table, so that a hostile file can at worst be refused.
"""

import pickletools

# An honest checkpoint of the deepest network takes some 30,000 opcodes, with its optimizer 100,000.
MAX_OPCODES = 400_000

PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}


class UnsafePickle(ValueError):
    """The pickle is broken, or holds what a checkpoint has no need of."""


class Inert:
    """Stands for an object that the reader has no use for; takes any arguments, does nothing."""

    def __init__(self, name):
        self.name = name

    def __call__(self, *args):
        """Returns itself, whatever it is called with."""
        return self


def load(stream, find_global, persistent_load):
    """Reads one pickle from a binary stream and leaves the stream behind it.

    Args:
        stream: Binary file, at the start of the pickle.
        find_global: Function from a global's dotted name to a callable that is safe with any
            arguments; raises `UnsafePickle` for a name that is not allowed.
        persistent_load: Function from a persistent id, any object, to what it stands for.

    Returns:
        The object: dicts with simple keys, lists, tuples, numbers, strings, bytes, and whatever
        the two functions return.

    Raises:
        UnsafePickle: whatever is wrong with the pickle.
    """
    try:
        return _run(stream, find_global, persistent_load)
    except UnsafePickle:
        raise
    # What pickletools and the steps below raise on bytes that are no pickle.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UnsafePickle(f"it is not a pickle, or a damaged one ({error})") from error


def _run(stream, find_global, persistent_load):
    stack, marks, memo = [], [], {}

    def since_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if count > MAX_OPCODES:
            raise UnsafePickle(f"it has more than {MAX_OPCODES} opcodes")
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
            stack.append(find_global(arg.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            module, attribute = _pop(stack, 2)
            stack.append(find_global(f"{_of_type(module, str)}.{_of_type(attribute, str)}"))
        elif name in ("REDUCE", "NEWOBJ"):
            function, args = _pop(stack, 2)
            stack.append(function(*_of_type(args, tuple)))
        elif name == "BUILD":
            stack.pop()  # The state of an object that stays inert, or a dict's attributes.
        elif name == "BINPERSID":
            stack.append(persistent_load(stack.pop()))
        elif name == "POP":
            stack.pop()
        elif name not in IGNORED:
            raise UnsafePickle(f"it uses the opcode {name}, which no checkpoint needs")
    raise UnsafePickle("it ends early")


def make_dict(pairs):
    """A dict whose keys are all quick to hash; a nested tuple may take for ever."""
    for key, _ in pairs:
        if not isinstance(key, str | int | float | None):
            raise UnsafePickle(f"it has a {type(key).__name__} as the key of a dict")
    return dict(pairs)


def _pairs(items):
    if len(items) % 2:
        raise UnsafePickle("it has a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


def _top(stack, size):
    if len(stack) < size:
        raise UnsafePickle("it takes more from its stack than there is")
    return stack[len(stack) - size :]


def _pop(stack, size):
    items = _top(stack, size)
    del stack[len(stack) - size :]
    return items


def _of_type(value, expected):
    if not isinstance(value, expected):
        raise UnsafePickle(f"it uses a {type(value).__name__} as a {expected.__name__}")
    return value
